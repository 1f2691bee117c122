"""Bytes of a song to windows, or a named reason why not."""
