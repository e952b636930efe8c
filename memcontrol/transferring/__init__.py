"""Masks on other data or another model, against full fine-tuning, random masks of their size, and the target's own."""
