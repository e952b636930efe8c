"""MemControl."""
