"""One file per family of measures; each is a pure function of arrays of features."""
