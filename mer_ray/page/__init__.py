"""A tagged catalogue as one HTML page: a map, a search, players, the words, and what failed."""
