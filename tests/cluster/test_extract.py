"""A run knows its encoder before it begins, and its driver needs neither torch nor Ray to be imported."""

import pickle
import subprocess
import sys

from mer_ray.audio.process import Limits
from mer_ray.cluster.encoding import Encoding
from mer_ray.cluster.extract import know
from mer_ray.cluster.stages import Decoding
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.encoders.tiny import Settings


def encoding(name: str, device: str = "cpu") -> Encoding:
    return Encoding(name, Settings().on(device), device, 10.0, False, batch_windows=8, threads=1)


def test_an_encoder_is_known_as_if_it_had_been_loaded_here() -> None:
    found, loaded = know(encoding("tiny")), load_encoder("tiny", "cpu")
    assert isinstance(found, Encoder)
    assert found.fingerprint() == loaded.fingerprint()
    assert (found.name, found.dim, found.sample_rate) == (loaded.name, loaded.dim, loaded.sample_rate)
    assert len(pickle.dumps(found)) < 10_000, "weights do not travel"


def test_one_for_a_gpu_is_known_where_there_is_none() -> None:
    found = know(encoding("tiny", "cuda"))
    assert isinstance(found, Encoder)
    assert found.dtype == "bfloat16"


def test_one_that_cannot_be_loaded_gives_its_sentence() -> None:
    assert "no such directory" in str(know(encoding("/nowhere/at/all")))


def test_the_driver_of_an_extract_imports_neither_torch_nor_ray() -> None:
    seen = "import sys, mer_ray.cluster.extract; print({'torch', 'transformers', 'ray'} & {*sys.modules})"
    printed = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"


def test_limits_and_what_the_encoder_says_itself_are_no_part_of_how_songs_are_cut() -> None:
    decoding = Decoding(10.0, True, 60.0, 24_000, 0.1, Limits())
    assert decoding.fingerprint() == {"window_seconds": 10.0, "keep_tail": True, "max_seconds": 60.0}
