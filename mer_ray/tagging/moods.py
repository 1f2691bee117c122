"""Words in the files' own tags, where players show them; what stood there before is kept, and can be put back.

_run/moods.jsonl      a line a file, written before the file is: its path, what it said, what it says now
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mer_ray import storage
from mer_ray.errors import InputError

JOURNAL = "moods.jsonl"


class Written(NamedTuple):
    """How many files were written, and of those that were not, the first few with the reason."""

    files: int
    left: list[tuple[str, str]]


def write_moods(songs: Iterable[tuple[str, list[str]]], journal: Path) -> Written:
    """Write each local file's words, best first, as its mood; a file that says the same already is left alone."""
    files, left = 0, []
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as notes:
        for uri, words in songs:
            if storage.is_s3(uri):
                left.append((uri, "not a local file"))
                continue
            try:
                before = read_mood(uri)
                if before != words:
                    print(json.dumps({"path": uri, "before": before, "after": words}), file=notes, flush=True)
                    os.fsync(notes.fileno())
                    set_mood(uri, words)
                    files += 1
            except (OSError, ValueError) as error:
                left.append((uri, str(error)))
    return Written(files, left)


def undo_moods(journal: Path) -> Written:
    """Put back what stood in the files before; one that says something else by now is left as it is.

    Raises:
        InputError: nothing was written.
    """
    if not journal.is_file():
        raise InputError(f"{journal}: nothing was written into files from here; there is nothing to undo.")
    files, left = 0, []
    for note in reversed([*_notes(journal)]):
        try:
            if read_mood(note["path"]) == note["after"]:
                set_mood(note["path"], note["before"])
                files += 1
            else:
                left.append((note["path"], "says something else by now"))
        except (OSError, ValueError) as error:
            left.append((note["path"], str(error)))
    journal.unlink()
    return Written(files, left)


def read_mood(path: str) -> list[str]:
    """What a file says of its mood; [] if it says nothing. ValueError for what mutagen cannot open."""
    file, key = _opened(path)
    value = None if file.tags is None else file.tags.get(key)
    values = getattr(value, "text", value) or []
    return [item.decode() if isinstance(item, bytes) else str(item) for item in values]


def set_mood(path: str, words: list[str]) -> None:
    """Say it in the tag that the file's format has for moods; [] takes the tag away."""
    from mutagen.id3 import TMOO
    from mutagen.mp4 import MP4FreeForm

    file, key = _opened(path)
    if file.tags is None:
        file.add_tags()
    if not words:
        file.tags.pop(key, None)
    elif key == "TMOO":
        file.tags.add(TMOO(encoding=3, text=words))
    elif key.startswith("----"):
        file.tags[key] = [MP4FreeForm(word.encode()) for word in words]
    else:
        file.tags[key] = words
    file.save()


def _opened(path: str) -> tuple[Any, str]:
    """A file by mutagen, and the key of its mood."""
    import mutagen
    from mutagen.asf import ASF
    from mutagen.id3 import ID3FileType
    from mutagen.mp4 import MP4

    try:
        file = mutagen.File(path)
    except mutagen.MutagenError as error:
        raise ValueError(f"its tags cannot be read ({error})") from error
    if file is None:
        raise ValueError("not a kind of file that holds tags")
    id3 = isinstance(file, ID3FileType) or type(file).__name__ in ("WAVE", "AIFF")
    keys = {MP4: "----:com.apple.iTunes:MOOD", ASF: "WM/Mood"}
    return file, "TMOO" if id3 else next((key for kind, key in keys.items() if isinstance(file, kind)), "mood")


def _notes(journal: Path) -> Iterator[dict[str, Any]]:
    for line in journal.read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):  # the last line of a run that was killed may be torn: its file was not touched
            yield json.loads(line)
