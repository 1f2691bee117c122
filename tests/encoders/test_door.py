"""A third party's encoder: any function of windows, from a module outside the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mer_ray.encoders import DOOR, Encoder, load_encoder
from mer_ray.errors import InputError
from mer_ray.fingerprints import encoder_differences
from tests.support import ROOT


def loudness(windows_BS: NDArray[np.float32]) -> NDArray[np.float32]:
    """[b, samples] to [b, 2]: mean and deviation."""
    assert isinstance(windows_BS, np.ndarray)
    return np.stack([windows_BS.mean(axis=1), windows_BS.std(axis=1)], axis=1)


def make(**changes: object) -> Encoder:
    known = {"encode": loudness, "name": "loudness", "dim": 2, "sample_rate": 8_000, "licence": "CC0-1.0"}
    return Encoder(**{**known, "digest": "1", **changes})  # type: ignore[arg-type]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Writes a module that can be imported; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, body: str) -> str:
        (tmp_path / f"{name}.py").write_text("from mer_ray.encoders import Encoder\n" + body)
        return name

    yield write
    for name in [name for name in sys.modules if name.startswith("others_")]:
        del sys.modules[name]


RETURNED = (
    "def load(word, settings, device):\n"
    "    return Encoder(encode=lambda windows: {what}, name='x', dim=3, sample_rate=8000, licence='none', digest='1')\n"
)


def test_functions_of_arrays_and_of_tensors_are_encoders() -> None:
    windows = np.random.default_rng(0).normal(size=(3, 8_000)).astype(np.float32)
    tensors = make(encode=lambda w: torch.stack([w.mean(1), w.std(1, correction=0)], 1), device="cpu")
    assert torch.allclose(make()(windows), tensors(windows), atol=1e-6)
    assert make()(torch.from_numpy(windows)).dtype == torch.float32


def test_packed_samples_reach_a_foreign_encoder_as_the_floats_they_stand_for() -> None:
    packed, scales = np.array([[100, -300], [7, 9]], np.int16), np.array([0.5, 2.0])
    found = make().launch(packed, scales)
    np.testing.assert_allclose(found, [[-50.0, 100.0], [16.0, 2.0]])


def test_an_encoder_without_torch_starts_and_works_without_it() -> None:
    code = """
import sys
import numpy as np
from mer_ray.cluster.encoding import Encoding, EncodeSongs
from mer_ray.encoders import load_encoder
from mer_ray.encoders._batching import Window, encode_tracks
encoder = load_encoder("descriptors", "cpu")
encode_tracks(encoder, [[Window(np.ones(16_000, np.int16), 0.1)]], 4)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_find_files_hub_ids_folders_and_modules(module: object, tmp_path: Path) -> None:
    assert DOOR.names() == ["descriptors", "mert", "random", "tiny"]
    assert DOOR.find("m-a-p/MERT-v1-330M")[0].__name__ == "mer_ray.encoders.mert"
    assert load_encoder("tiny").digest == load_encoder("tiny", "cpu").digest
    module("others_words", RETURNED.replace("'x'", "'x ' + word").format(what="windows[:, :3]"))
    assert load_encoder("others_words:small").name == "x small"


def test_own_settings_are_taken_checked_and_stored(module: object) -> None:
    body = "from mer_ray.settings import Part\nclass Settings(Part):\n    bands: int = 3\n" + RETURNED
    module("others_bands", body.format(what="windows[:, :3]"))
    assert load_encoder("others_bands", bands=4).identity().items() >= {"bands": 4, "weights_sha256": "1"}.items()
    assert load_encoder("others_bands").fingerprint()["bands"] == 3
    for own, named in (({"bands": "x"}, "bands x: Input should be"), ({"band": 1}, "band 1: Extra inputs")):
        with pytest.raises(InputError, match=named):
            load_encoder("others_bands", **own)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("raise ImportError('no laion_clap')", "cannot be imported .no laion_clap.; install what it needs"),
        ("def lood(): ...", "the module defines no 'load'"),
        ("def load(word, settings, device):\n    1 / 0", r"cannot be used \(ZeroDivisionError: .*others_0.py:3\)"),
        ("def load(word, settings, device): return 5", "its load returns no mer_ray.encoders.Encoder"),
        (RETURNED.format(what="windows[:, :4]"), r"returns features \[2, 4\] where \[2, 3\] were promised"),
        (RETURNED.format(what="windows[:, :3] / 0"), "no finite numbers for 0.1 s of noise"),
        (RETURNED.format(what="undefined"), "cannot be used .NameError: name 'undefined' is not defined"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_sentence(module: object, body: str, named: str) -> None:
    module("others_0", body)
    with pytest.raises(InputError, match=named) as caught:
        load_encoder("others_0")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_version_as_digest_tells_only_the_weights_of_one_name_apart() -> None:
    one, other, newer = make().identity(), make(name="pitch").identity(), make(digest="2").identity()
    assert encoder_differences(one, one) == []
    assert encoder_differences(one, other) == ["encoder is pitch there, loudness asked"]
    assert encoder_differences(one, newer) == ["sha256 of the weights is 2 there, 1 asked"]
    assert make().fingerprint()["encoder"] != make(name="pitch").fingerprint()["encoder"]


def test_all_that_two_identities_state_is_compared_but_how_they_were_made() -> None:
    one = make(settings={"bands": 3}).identity()
    assert encoder_differences(one, make(settings={"bands": 4}).identity()) == ["bands is 4 there, 3 asked"]
    same = {**one, "licence": "MIT", "dtype": "bfloat16", "keep_tail": True, "hop": 5}
    assert encoder_differences(one, same) == []


def test_the_door_and_the_start_of_decoders_import_neither_torch_nor_ray_nor_codecs() -> None:
    code = (
        "import sys, mer_ray.audio, mer_ray.audio.process, mer_ray.cluster.settings\n"
        "from mer_ray.encoders import DOOR, Encoder\n"
        "for name in DOOR.names(): DOOR.find(name)\n"
        "assert not {'torch', 'ray', 'av', 'soundfile', 'transformers'} & sys.modules.keys()\n"
        "import mer_ray.audio.child\n"
        "assert not {'torch', 'ray', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
