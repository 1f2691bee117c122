"""Features and words to a model."""
