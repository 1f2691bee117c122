"""Windows to features."""
