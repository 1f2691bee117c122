"""A model and words to ranked tags."""
