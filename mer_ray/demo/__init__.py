"""The composed catalogue and the simulated world."""
