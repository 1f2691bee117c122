"""Arrays of strangers: read whole, or refused in a sentence before anything is taken on their word."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mer_ray.arrays import map_array, read_arrays
from mer_ray.errors import InputError

PROMISED = 1 << 40


def boastful(path: Path) -> Path:
    """A file of sixteen numbers whose header promises a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (PROMISED // 4,)})
    path.write_bytes(header.getvalue() + bytes(64))
    return path


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    grid, words = np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["calm", "happy"])
    np.savez_compressed(tmp_path / "a.npz", grid=grid, words=words, none=np.zeros((0, 3)))
    np.save(tmp_path / "a.npy", grid)
    found = read_arrays(str(tmp_path / "a.npz"))
    assert {name: array.tolist() for name, array in found.items()} == {
        "grid": grid.tolist(),
        "words": words.tolist(),
        "none": [],
    }
    assert read_arrays(str(tmp_path / "a.npy"))["array"].tolist() == grid.tolist()
    assert map_array(str(tmp_path / "a.npy")).tolist() == grid.tolist()


def test_a_header_that_promises_a_terabyte_is_not_believed(tmp_path: Path) -> None:
    path = boastful(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(path, "array.npy")
    tracemalloc.start()
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=f"{name}: not plain numpy arrays"):
            read_arrays(str(tmp_path / name))
    with pytest.raises(InputError, match="not a plain"):
        map_array(str(path))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_python_objects_and_damage_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", array=np.array([{}]))
    (tmp_path / "text.npz").write_text("no archive")
    whole = io.BytesIO()
    np.savez_compressed(whole, array=np.arange(1000))
    (tmp_path / "cut.npz").write_bytes(whole.getvalue()[:-40])
    for name in ("objects.npy", "objects.npz", "text.npz", "cut.npz"):
        with pytest.raises(InputError, match=f"{name}: not plain numpy arrays"):
            read_arrays(str(tmp_path / name))
    with pytest.raises(InputError, match="not found"):
        read_arrays(str(tmp_path / "absent.npz"))
