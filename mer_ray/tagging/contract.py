"""The columns of tags: their types, and what the parts of a tags directory promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.fingerprints import text_sha256
from mer_ray.runs.directory import run_file
from mer_ray.songs import Breach, Content, lengths, songs_at, stored_json
from mer_ray.words.lists import Word

WORDS = "words.json"
"""The file in ``_run`` that holds the words of a tags directory with their phrases: once, and not in each part."""

TAGS_TYPE = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32()), ("percentile", pa.float32())]))
CALIBRATED_TYPE = pa.list_(
    pa.struct(
        [*TAGS_TYPE.value_type, *((name, pa.float32()) for name in ("precision", "precision_low", "precision_high"))]
    )
)
"""With a calibration: how right each tag is expected to be, and between what that lies; nan for words not measured."""
TIMELINE_TYPE = pa.list_(pa.struct([("start_s", pa.float32()), ("tags", pa.list_(pa.string()))]))


def words_file(words: Sequence[Word]) -> bytes:
    """The content of :data:`WORDS`."""
    return storage.as_json({"phrases": {word.label: word.phrases for word in words}})


def asked_words(uri: str, schema: pa.Schema) -> list[Word]:
    """The words that a tags directory was asked for: of its ``_run``, or of a footer that an older version wrote."""
    found = (storage.read_json(run_file(uri, WORDS)) or {}).get("phrases")
    phrases = found or dict.fromkeys(stored_json(schema, "mer_ray.tags").get("labels", ()), ())
    return [Word.of(label, *own) for label, own in phrases.items()]


def words_digest(words: Sequence[Word]) -> str:
    """Tells one list of words from another, in the footers of parts and in a run's fingerprint."""
    asked = [(word.label, word.phrases) for word in words]
    return text_sha256(storage.as_json({"labels": asked}).decode())[:16]


def _breaches(words: Callable[[pa.Schema], list[Word]], rows: pa.Table, ok: pa.Array) -> Iterator[Breach]:
    asked, known = stored_json(rows.schema, "mer_ray.tags"), [word.label for word in words(rows.schema)]
    ids, column, number = rows["track_id"], rows["tags"], asked.get("words", len(known))
    song, flat = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    label, score, percentile = (pc.struct_field(flat, name) for name in ("label", "score", "percentile"))
    scores, ranks = score.to_numpy(), percentile.to_numpy()
    yield "ok rows", "songs with scores that are no finite numbers", songs_at(rows, song[~np.isfinite(scores)])
    rising = (np.diff(scores) > 0) & (np.diff(song) == 0)
    yield "tags", "songs whose tags are not best first", songs_at(rows, song[1:][rising])
    outside = ~((ranks >= 0) & (ranks <= 1))
    yield "tags", "songs with percentiles outside 0 to 1", songs_at(rows, song[outside])
    strange = pc.invert(pc.is_in(label, value_set=pa.array(known, pa.string()))).to_numpy()
    yield "tags", "songs with words that were not asked for", songs_at(rows, song[strange])
    most, counts = min(asked["k"] or number, number), lengths(column)
    yield "tags", f"songs with more than {most} tags", ids.filter(pc.greater(counts, most))
    for values, least in ((scores, asked["threshold"]), (ranks, asked.get("min_percentile"))):
        if least is not None:
            yield "tags", f"songs with tags below {least:g}", songs_at(rows, song[values < np.float32(least)])
    if (asked["threshold"], asked.get("min_percentile")) == (None, None):
        yield "tags", f"songs with fewer than {most} tags", ids.filter(pc.and_(ok, pc.less(counts, most)))
    if "embedding" in rows.column_names:
        vectors = rows["embedding"]
        values = pc.list_flatten(vectors.drop_null()).to_numpy().reshape(-1, vectors.type.list_size)
        finite = np.zeros(len(rows), bool)
        finite[vectors.is_valid().to_numpy()] = np.isfinite(values).all(axis=1)
        broken = pc.and_(ok, pa.array(~finite))
        yield "ok rows", "songs whose embedding is missing or no finite numbers", ids.filter(broken)


def tags_content(uri: str) -> Content:
    """What the parts of the tags directory at a URI promise."""
    words = lru_cache(maxsize=1)(partial(asked_words, uri))  # of all parts the same
    return Content(
        column="tags",
        jobs=("tag",),
        identities=("mer_ray.encoder", "mer_ray.tags"),
        fits=lambda kind: kind in (TAGS_TYPE, CALIBRATED_TYPE),
        check="tags",
        shown=lambda _: "best first, within their limits, percentiles within 0 to 1",
        row_breaches=partial(_breaches, words),
    )
