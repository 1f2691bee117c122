"""A third party's encoder, named on the command line, from extract to tags; nothing inside the package knows it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from mer_ray.features import Store
from tests.conftest import Job, done, refused

CODE = '''
"""Levels of bands of the spectrum; what windows of 2.5 to 4 s have of them is undefined."""
import numpy as np
from mer_ray.encoders import Encoder
from mer_ray.settings import Part

class Settings(Part):
    bands: int = 5
    """Bands of the spectrum."""

def load(word, settings, device):
    def encode(windows):
        assert windows.dtype == np.float32
        if 40_000 < windows.shape[1] < 64_000:
            return np.full((len(windows), settings.bands), np.nan)
        spectrum = np.abs(np.fft.rfft(windows, axis=1))
        return np.log1p([[band.mean() for band in np.array_split(row, settings.bands)] for row in spectrum])

    return Encoder(encode=encode, name="bands:" + word, dim=settings.bands, sample_rate=16_000, min_seconds=2.0,
                   licence="CC0-1.0", digest="v1")
'''
OthersJob = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the third party works: their package, and songs of which two are short, as a manifest."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "their_pkg").mkdir()
    (folder / "their_pkg" / "__init__.py").touch()
    (folder / "their_pkg" / "bands.py").write_text(CODE)
    songs = pd.read_parquet(store / "demo-gems.parquet")
    for seconds in (1.5, 3.0):
        noise = np.random.default_rng(0).normal(0, 0.1, round(44_100 * seconds))
        song = folder / f"{seconds}.wav"
        soundfile.write(song, noise, 44_100)
        songs = pd.concat([songs, pd.DataFrame({"track_id": [song.name], "uri": [str(song)]})])
    songs.to_parquet(folder / "songs.parquet")
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path, job: Job) -> OthersJob:
    """Run a job where the third party's package lies."""
    return partial(job, cwd=folder)


@pytest.fixture(scope="module")
def features(folder: Path, theirs: OthersJob) -> Path:
    """Their features of all songs."""
    flags = ("--encoder", "their_pkg.bands:wide", "--bands", 7, "--features", folder / "features")
    assert "bands:wide (D = 7)" in done(theirs("extract", "--catalog", folder / "songs.parquet", *flags))
    return folder / "features"


def test_its_features_are_stored_with_what_it_says_of_itself(features: Path, folder: Path) -> None:
    rows = pd.read_parquet(features).set_index("track_id")
    assert rows.status.value_counts().to_dict() == {"ok": len(rows) - 2, "failed": 2}
    assert rows.error_class.dropna().to_dict() == {"1.5.wav": "too_short", "3.0.wav": "not_finite"}
    assert "less than 2.0 s" in rows.error["1.5.wav"]
    assert np.isfinite(np.concatenate([np.stack(windows) for windows in rows.features if len(windows)])).all()
    store = Store.open(str(features))
    assert store.dim == 7
    assert store.encoder == {
        "name": "bands:wide",
        "revision": None,
        "weights_sha256": "v1",
        "licence": "CC0-1.0",
        "bands": 7,
        "window_seconds": 10.0,
        "keep_tail": False,
        "sample_rate": 16_000,
        "dtype": "float32",
        "dim": 7,
    }


def test_its_windows_are_decoded_at_its_own_rate(features: Path, folder: Path) -> None:
    sys.path.insert(0, str(folder))
    try:
        from mer_ray.audio import decode_windows
        from mer_ray.encoders import load_encoder

        encoder = load_encoder("their_pkg.bands:wide", bands=7)
        rows = pd.read_parquet(features).query("status == 'ok'")
        windows = decode_windows(rows.uri.iloc[0], sample_rate=16_000).windows
        np.testing.assert_allclose(np.stack(rows.features.iloc[0]), encoder(windows).numpy(), atol=2e-2)
    finally:
        sys.path.remove(str(folder))


def test_other_settings_of_its_own_need_a_store_of_their_own(features: Path, folder: Path, theirs: OthersJob) -> None:
    flags = ("--catalog", folder / "songs.parquet", "--features", features, "--encoder", "their_pkg.bands:wide")
    said = refused(theirs("extract", *flags))
    assert "bands is 7 there, 5 asked" in said


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--encoder", "their_pkg.bands", "--band", 3), "--band: unknown setting (did you mean 'bands'?)"),
        (
            ("--encoder", "their_pkg.bands", "--layers", 3),
            "--layers: a setting of --encoder mert, and --encoder is their_pkg.bands",
        ),
        (("--encoder", "their_pkg.brands:x"), "--encoder their_pkg.brands:x: no such encoder"),
        (("--encoder", "their_pkg"), "the module defines no 'load'"),
    ],
)
def test_what_it_does_not_know_is_refused(
    folder: Path, theirs: OthersJob, tmp_path: Path, flags: tuple[object, ...], named: str
) -> None:
    assert named in refused(theirs("extract", "--catalog", folder / "music", "--features", tmp_path / "f", *flags))
