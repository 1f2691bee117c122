"""Strangers' numpy files: never a pickle, and no memory taken on the word of a header."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def map_array(uri: str) -> NDArray[Any]:
    """A local ``.npy`` file as an array that stays on disk.

    Raises:
        InputError: it is missing, shorter than it says, or holds Python objects.
    """
    if storage.is_s3(uri):
        raise InputError(f"{uri}: arrays are mapped from disk; copy the file to a local path.")
    try:
        with storage.readable(uri):
            array = np.load(storage.absolute(uri), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        raise InputError(f"{uri}: not a plain .npy array (whole, without Python objects); fetch it again.") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{uri}: an archive of arrays; give the .npy file itself.")
    return array


def read_arrays(uri: str) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` by name, or that of an ``.npy`` as ``array``; read-only, in memory.

    Raises:
        InputError: it is missing, damaged, shorter than it says, or holds Python objects.
    """
    with storage.readable(uri):
        content = io.BytesIO(storage.read_bytes(uri))
    try:
        if not zipfile.is_zipfile(content):
            content.seek(0)
            return {"array": _read(content)}
        with zipfile.ZipFile(content) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _read(archive.open(name)) for name in names}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{uri}: not plain numpy arrays (.npz or .npy, whole, without Python objects); fetch it again."
        ) from error


def _read(file: IO[bytes]) -> NDArray[Any]:
    """One array; what a header promises and the file does not hold is never allocated."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format {version}")
    shape, fortran, kind = _HEADERS[version](file)
    size = math.prod(shape) * kind.itemsize
    content = file.read(size) if size > 0 else b""
    if kind.hasobject or len(content) != size:
        raise ValueError("Python objects, or cut short")
    return np.ndarray(shape, kind, content, order="F" if fortran else "C")
