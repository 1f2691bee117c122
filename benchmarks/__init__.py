"""Measurements and rehearsals: each prints what it finds from one run."""
