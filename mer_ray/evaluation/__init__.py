"""How well ranked labels match the truth."""
