"""A training's features on its node's own disk: written once from the store, then mapped by every worker there.

A worker's memory holds the batch it works on; what of the file stays in memory is the operating system's to decide.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from mer_ray.errors import InputError
from mer_ray.features import Places, Store, Windows, find_windows


class Scratch:
    """A folder of one training on this node; ``name`` tells it from others, ``place`` is where it is to lie."""

    def __init__(self, name: str, place: str | None = None) -> None:
        self.folder = Path(place or tempfile.gettempdir()) / f"mer-ray-{name}"

    def windows(self, name: str, stores: Sequence[Store], track_ids: Collection[str]) -> Windows:
        """As :func:`mer_ray.features.read_windows`, but mapped from a file that the first worker to ask writes.

        Raises:
            InputError: a window holds what is no finite number, or the disk has no room.
        """
        file, index = self.folder / f"{name}.f16", self.folder / f"{name}.json"
        with self._alone():
            if not index.exists():
                index.write_text(json.dumps(self._write(file, stores, track_ids)))
                _give_back()
        counts, ids, absent = json.loads(index.read_text())
        shape = (sum(counts), stores[0].dim)
        # Mapped copy-on-write, as torch wants to be able to write; nobody does.
        features = np.memmap(file, np.float16, "c", shape=shape) if shape[0] else np.zeros(shape, np.float16)
        return Windows(features, np.repeat(np.arange(len(ids)), counts), ids, absent)

    def remove(self) -> None:
        """Take the files' names away, once every worker of the node has them mapped; they go with the last."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(
        self, file: Path, stores: Sequence[Store], track_ids: Collection[str]
    ) -> tuple[list[int], list[str], dict[str, str]]:
        """Windows as the stores hold them first, then in the order of ``track_ids``, which the draws depend on."""
        dim, found, absent, starts = stores[0].dim, Places(), dict[str, str](), [0]
        unordered = file.with_suffix(".unordered")
        try:
            with unordered.open("wb") as into:
                for flat in find_windows(stores, track_ids, found, absent):
                    flat.tofile(into)
                    starts.append(starts[-1] + len(flat))
            ids = [track_id for track_id in track_ids if track_id in found]
            with unordered.open("rb") as source, file.open("wb") as into:
                for piece, start, count in map(found.__getitem__, ids):
                    source.seek((starts[piece] + start) * dim * 2)
                    into.write(source.read(count * dim * 2))
        except OSError as error:
            raise InputError(
                f"scratch {self.folder}: {error.strerror}; give --scratch a folder on a disk with room for the "
                "features twice."
            ) from error
        unordered.unlink()
        return [found[track_id][2] for track_id in ids], ids, absent

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off the node's other workers, even where one dies meanwhile."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise InputError(f"scratch {self.folder}: {error.strerror}; give --scratch another folder.") from error


def _give_back() -> None:
    """Let go of what allocators keep of the parts that were read; a training would hold it to its end."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
