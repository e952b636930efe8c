"""The outer loop: candidates, their evaluation, proposals, the shared study, workers and the front."""
