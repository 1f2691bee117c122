"""From a tags directory to one HTML page, with all it needs inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import shlex
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.manifest import NAMES
from mer_ray.catalog.names import names_of
from mer_ray.errors import InputError
from mer_ray.page.places import Places, find_places, find_sources
from mer_ray.page.settings import PageSettings
from mer_ray.page.survey import Counts, read_songs, some_parts, survey
from mer_ray.runs.directory import run_file
from mer_ray.songs import untrained
from mer_ray.tagging.links import links
from mer_ray.tagging.tagged import Tagged
from mer_ray.words.lists import Word

PAGE = "page.html"
"""The page that a run leaves in its ``_run``."""
WORDS = 300
"""On a page at most, those given most often."""
COLOURS = (
    *("#4e9bd6", "#f0883e", "#57ab5a", "#d9b52c", "#b083f0", "#e5726f"),
    *("#39b5ad", "#f27fb2", "#a3794f", "#8fbf3f", "#6f7fe8", "#c0568f"),
)
"""Of the words given most often; they tell themselves apart on white and on black."""


def make_page(settings: PageSettings) -> dict[str, Any]:
    """Write the page; returns what is on it, as its script reads it.

    Where store or model are gone, the page has no map, and says why.

    Raises:
        InputError: there are no tags, or the page's name does not end in .html.
    """
    if not settings.output.lower().endswith((".html", ".htm")):
        raise InputError(f"--output {settings.output}: a page; end its name with .html.")
    whole = Tagged.open(settings.tags)
    tagged = some_parts(whole)
    counts, ids = survey(tagged, settings.songs)
    songs = read_songs(tagged, ids)
    words = sorted(tagged.words, key=lambda word: -counts.given[word.label])[:WORDS]
    places, why, learned = None, "No song could be read.", list[str]()
    if ids:
        try:
            sources = find_sources(tagged, settings.features, settings.model)
            places, why = find_places(tagged, sources, songs, words), ""
            learned = list(sources.model.labels.get("datasets", ()))
        except InputError as error:
            why = str(error)
    content = _content(settings, tagged, counts, songs, words, places, why)
    if learned:
        content["facts"].append(
            ["Trained on", f"{', '.join(learned)}, whose terms bind the model and these tags as well"]
        )
    if len(tagged.parts) < len(whole.parts):
        content["summary"] += f" Looked at were {len(tagged.parts):,} of {len(whole.parts):,} parts."
    storage.write_bytes(settings.output, render(content).encode())
    return content


def page_of_run(tags: str) -> str:
    """Write the page of a tags directory into its ``_run``; returns a sentence that says where it is, or why not.

    It stays there for whoever may read the tags, so it has no links that open songs on S3 to them.
    """
    output = run_file(tags, PAGE)
    try:
        make_page(PageSettings.model_construct(tags=tags, output=output, link_hours=0.0))
    except InputError as error:
        return f"no page: {error}"
    return f"look at and listen to {output}"


def render(content: dict[str, Any]) -> str:
    """The page around its content."""
    from plotly.offline import get_plotlyjs

    plotly = get_plotlyjs() if content["map"] else ""
    here = files("mer_ray.page")
    style, script, frame = (here.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (plotly, script))
    # Nothing is fetched but audio; plotly makes functions of text.
    policy = (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src file: https: http:"
    )
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    inside = {"title": html.escape(content["title"]), "policy": policy, "style": style, "data": data}
    return Template(frame).substitute(inside, plotly=plotly, script=script)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _content(
    settings: PageSettings,
    tagged: Tagged,
    counts: Counts,
    songs: pa.Table,
    words: Sequence[Word],
    places: Places | None,
    why: str,
) -> dict[str, Any]:
    heard = links(songs["uri"].to_pylist(), settings.output, settings.link_hours * 3600)
    encoder, told = tagged.encoder, f"{counts.ok:,} of {counts.songs:,} songs tagged with {len(tagged.words):,} words"
    shown = f"; {len(songs):,} of them here, drawn by a hash of their ids" if len(songs) < counts.ok else ""
    model = settings.model or tagged.settings.get("model") or "unknown"
    return {
        "title": settings.title or f"{tagged.uri.rstrip('/').rsplit('/', 1)[-1]}: {counts.ok:,} songs",
        "summary": f"{told}, {counts.audio_s / 3600:,.1f} hours of music{shown}.",
        "untrained": _UNTRAINED.format(encoder.get("name")) if untrained(encoder) else None,
        "facts": [
            ["Model", f"{model} ({tagged.model_digest[:12]})"],
            ["Encoder", f"{encoder.get('name')}, D = {encoder.get('dim')}"],
            ["Its licence", encoder.get("licence") or "unknown"],
        ],
        "map": places is not None,
        "mapnote": _MAP if places else f"No map: {why}",
        "wordnote": _WORDS + (f" Shown are the {WORDS} given most often." if len(tagged.words) > WORDS else ""),
        "windowSeconds": float(encoder.get("window_seconds") or 10.0),
        "songs": {**_songs(settings, tagged, songs, words, places), "links": heard.endings},
        "roots": heard.roots,
        "mute": None if settings.link_hours else _MUTE,
        "words": [_word(at, word, counts, places) for at, word in enumerate(words)],
        "failures": [_failure(tagged, kind, number, counts) for kind, number in counts.failures.most_common()],
        "made": _made(settings, tagged),
    }


def _songs(
    settings: PageSettings, tagged: Tagged, songs: pa.Table, words: Sequence[Word], places: Places | None
) -> dict[str, list[Any]]:
    """By column, a value a song."""
    number = {word.label: at for at, word in enumerate(words)}
    tags = [
        [[number[tag["label"]], round(tag["percentile"], 3)] for tag in own if tag["label"] in number]
        for own in songs["tags"].to_pylist()
    ]
    lines = [
        [next((number[word] for word in moment["tags"] if word in number), None) for moment in line or ()]
        for line in (songs["timeline"].to_pylist() if "timeline" in songs.column_names else [None] * len(songs))
    ]
    names = names_of(songs["track_id"], settings.catalog or tagged.settings.get("catalog"))
    x, y = (places.songs[:, axis].round(3).tolist() if places else [] for axis in (0, 1))
    named = {f"{name}s": names[name].to_pylist() for name in NAMES}
    return {"ids": songs["track_id"].to_pylist(), **named, "tags": tags, "lines": lines, "x": x, "y": y}


def _word(at: int, word: Word, counts: Counts, places: Places | None) -> dict[str, Any]:
    given = counts.given[word.label]
    told: dict[str, Any] = {"label": word.label, "given": given, "share": round(given / max(1, counts.ok), 4)}
    told["colour"] = COLOURS[at] if at < len(COLOURS) else None
    if places is None:
        return {**told, "best": [], "worst": []}
    for name in ("best", "worst"):
        told[name] = [[int(song), round(float(places.percentiles[song, at]), 3)] for song in getattr(places, name)[at]]
    told["x"], told["y"] = (round(float(value), 3) for value in places.words[at])
    return told


def _failure(tagged: Tagged, kind: str, number: int, counts: Counts) -> dict[str, Any]:
    again = "extract and tag them again with --retry-failed"
    mend = f"{number - len(counts.examples[kind]):,} more in {tagged.uri}/_run/failures.parquet. " * (
        number > len(counts.examples[kind])
    )
    return {"kind": kind, "songs": number, "examples": counts.examples[kind], "mend": f"{mend}Once mended, {again}."}


def _made(settings: PageSettings, tagged: Tagged) -> list[list[str]]:
    """Remarks, each with a line for a console."""
    asked = ", ".join(f"{name} {value}" for name, value in tagged.asked.items() if name in _ASKED and value is not None)
    again = shlex.join(["mer-ray", "page", tagged.uri, "--output", settings.output, "--songs", f"{settings.songs}"])
    made = [[f"Tags of {tagged.uri}, written by version {tagged.version}: {asked}. This page again:", again]]
    if "embedding" in tagged.schema.names and not storage.is_s3(tagged.uri):
        where = "--query \"select * from data where status = 'ok'\" --vector embedding"
        parts = f"{shlex.quote(tagged.uri)}/part-*.parquet"
        return [*made, [_ATLAS, f"pip install embedding-atlas && embedding-atlas {parts} {where}"]]
    return [*made, ["For millions of songs, tag with --embedding: this page then names the line that opens them.", ""]]


_ATLAS = "The same tags with all songs, be they millions, in embedding-atlas:"
_ASKED = ("k", "threshold", "min_percentile", "ranking")
_UNTRAINED = (
    "Untrained: the encoder '{}' has random weights. The page shows that the machinery works; what it says of the "
    "music means nothing."
)
_MUTE = (
    "Songs on s3:// are not linked here: whoever had the page could hear them. `mer-ray page TAGS --output page.html` "
    "makes one with links that last a day."
)
_MAP = (
    "Each point is a song, coloured by its first word; the frames are the words themselves. A song's place is its "
    "vector, seen from the catalogue's centre, along the directions of valence and arousal that the model's word space "
    "has; both axes are scaled to the songs. Scroll to zoom, drag to move, click to play."
)
_WORDS = (
    "The share of songs that have each word among their tags. Open one for the songs it suits best and worst, each "
    "with its percentile: the share of the catalogue's songs that the word suits no better."
)
