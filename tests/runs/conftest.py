"""Finished directories to look at and to damage."""

from pathlib import Path

import pytest

from tests.support.song_directories import features, run, tags


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A finished feature store: four songs in two parts, two that failed."""
    parts = [features("a", "b"), features("c", "d"), features("e", "f", failed="not_audio")]
    run(str(tmp_path / "store"), "extract", *parts)
    return tmp_path / "store"


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A finished tags directory of the same songs."""
    run(str(tmp_path / "tags"), "tag", tags("a", "b"), tags("c", "d"), tags("e", "f", failed="not_audio"))
    return tmp_path / "tags"
