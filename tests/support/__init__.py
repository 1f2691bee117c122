"""What the tests stand on: servers, faults, fixtures."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
