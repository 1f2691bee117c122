"""Whether an output directory keeps its promises: its parts against its manifest, schema and summary.

Of a part its footer and its status columns are read, so that a store of terabytes is checked in little; deep, all its
values as well, a few songs at a time. What grows with the catalogue are the ids and the failed rows. Nothing is written
and no lock is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.asked import added
from mer_ray.runs.contract import Findings, row_breaches, schema_difference, schema_problem, shown
from mer_ray.runs.directory import FAILURES, MANIFEST, SETTINGS, SUMMARY, run_file
from mer_ray.runs.lock import STAGED, named
from mer_ray.runs.shards import Shard, all_of, listed, numbers_of
from mer_ray.runs.status import TRAINING, RunFiles, open_run, read_asked
from mer_ray.runs.tally import Tally
from mer_ray.songs import (
    FEATURES_AHEAD,
    STATUS_AHEAD,
    STATUS_COLUMNS,
    STATUS_FIELDS,
    Content,
    Damage,
    damaged,
    part_name,
    read_parts,
    stored_metadata,
)

BATCH_SONGS = 64
"""Songs of a part read at a time; of two hours each, their features are a third of a gigabyte."""


class Check(NamedTuple):
    """One promise: ``problem`` says how it is broken, empty if it holds; ``detail`` what was looked at."""

    name: str
    problem: str
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of a directory, and remarks that break no promise."""

    uri: str
    job: str
    checks: list[Check]
    notes: list[str]

    @property
    def valid(self) -> bool:
        """Whether every check holds."""
        return not any(check.problem for check in self.checks)

    def __str__(self) -> str:
        """For a console: a line a check, then the remarks, then the sum."""
        lines = [f"{self.uri}: {self.job}"]
        for check in self.checks:
            verdict = "FAILED" if check.problem else "ok"
            lines.append(f"  {verdict:8}{check.name:13}{check.problem or check.detail}".rstrip())
        lines += [f"  {'note':8}{note}" for note in self.notes]
        broken, total = sum(bool(check.problem) for check in self.checks), len(self.checks)
        return "\n".join([*lines, f"{broken} of {total} checks FAILED" if broken else f"all {total} checks hold", ""])


@dataclass
class Survey:
    """What reading one part, or all of them, brought to light.

    Attributes:
        content: what the rows hold beside their status.
        schema: of the first part.
        breaches: of checks, by songs or by the part itself.
        ids: of every row, those of parts whose other columns are wrong as well.
        tally: of the rows that are as they should be.
        versions: of the code that wrote the parts.
    """

    content: Content
    schema: pa.Schema | None = None
    breaches: list[tuple[str, str, pa.Array | list[str]]] = field(default_factory=list)
    ids: list[pa.Array] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    versions: set[str] = field(default_factory=set)


@dataclass
class Sums:
    """What the shards that were looked at add up to."""

    content: Content
    schema: pa.Schema | None = None
    parts: int = 0
    asked: int = 0
    counts: list[dict[str, Any]] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)


def validate(uri: str, contents: Sequence[Content], *, deep: bool = False, shards: int | None = None) -> Report:
    """Check an output directory of extract or tag.

    Args:
        uri: local or ``s3://``.
        contents: what the parts may hold; the first one if there is nothing to tell by.
        deep: read what stands beside the status columns too, and check its values.
        shards: look at so many of them alone, spread over all.

    Raises:
        InputError: it is none, or it cannot be read.
    """
    findings, notes = Findings(), []
    with storage.readable(uri):
        run = open_run(uri)
        if run.job == TRAINING:
            raise InputError(f"--run {uri}: a model directory; validate checks what extract and tag wrote.")
        contents = [content for content in contents if run.job in content.jobs] or contents
        success = storage.exists(storage.join(uri, "_SUCCESS"))
        every = all_of(uri)
        looked_at = every if shards is None else every[:: max(1, len(every) // shards)][:shards]
        findings.add("names", "of no shard", [part.name for part in listed(uri, len(every))[1]])
        sums = Sums(contents[0])
        fingerprint = run.settings.get("fingerprint", {})
        read = partial(_survey_part, fingerprint=fingerprint, contents=contents, deep=deep)
        for shard in looked_at:
            survey = _survey(shard, read, FEATURES_AHEAD if deep else STATUS_AHEAD, findings, sums)
            _check_shard(shard, survey, findings, sums, success=success)
        whole = len(looked_at) == len(every)
        complete = not (findings.problem("manifest") or findings.problem("ids"))
        at_work = run.at_work
        if not {"job", "fingerprint"} <= run.settings.keys():
            findings.say("settings", f"no readable _run/{SETTINGS} with job and fingerprint")
        if success and whole:
            _check_summary(uri, run, added(sums.counts), findings)
        if success and not complete:
            findings.say("_SUCCESS", "there, although not every song is in the parts once")
        elif complete and whole and not success and not at_work:
            findings.say("_SUCCESS", "not there, although every song is in the parts; run the same command again")
        if not at_work:
            findings.add("temporaries", "left by killed writers", _temporaries(uri))
    details = _details(run, sums, success=success, whole=whole, at_work=at_work is not None)
    if not deep:
        notes.append(f"{sums.content.column} were not read; --deep reads and checks every value")
        if sums.content.schema_breaches is None:
            del details[sums.content.check]
    if not whole:
        notes.append(f"{len(looked_at):,} of {len(every):,} shards were looked at")
    if at_work:
        notes.append(f"{named(at_work['job'], at_work['process'], at_work['host'])} is at work here")
    if unasked := findings.problem("unasked"):
        notes.append(unasked)
    if len(sums.versions) > 1:
        notes.append(f"parts were written by versions {', '.join(sorted(sums.versions))}")
    return Report(uri, run.job, [Check(name, findings.problem(name), told) for name, told in details.items()], notes)


def _details(run: RunFiles, sums: Sums, *, success: bool, whole: bool, at_work: bool) -> dict[str, str]:
    """What was looked at, by check."""
    counts = added(sums.counts)
    return {
        "settings": run.job,
        "manifest": f"{sums.asked:,} songs asked",
        "parts": f"{sums.parts:,}, each with a footer",
        "schema": "the same in all parts",
        sums.content.check: sums.content.shown(sums.schema),
        "names": "each part is named by its songs",
        "status": f"{counts['songs']:,} songs",
        "ok rows": f"{counts['ok']:,} songs",
        "failed rows": f"{counts['failed']:,} songs, each with its reason",
        "ids": "each in the parts exactly once",
        "summary": ("counts as the parts do" if whole else "not looked at") if success else "not finished",
        "failures": f"lists the {counts['failed']:,} failed songs" if success else "not finished",
        "_SUCCESS": "there" if success else "not there",
        "temporaries": "of the run at work" if at_work else "none left",
    }


def _check_shard(shard: Shard, survey: Survey, findings: Findings, sums: Sums, *, success: bool) -> None:
    """Check one shard against its manifest; only what it adds to the sums is kept of it."""
    asked = read_asked(shard)
    _check_ids(shard, asked, pa.chunked_array(survey.ids, pa.string()), findings)
    if success:
        _check_failures(shard, survey.tally.failed, findings)
    sums.asked += 0 if asked is None else len(asked)
    sums.counts.append(survey.tally.counts())


def _survey(shard: Shard, read: Callable[[Shard, str], Survey], ahead: int, findings: Findings, sums: Sums) -> Survey:
    """What all parts of a shard bring to light together; what breaks a check goes to the findings."""
    whole, parts = Survey(sums.content), [part.uri for part in shard.parts()]
    sums.parts += len(parts)
    for part, found in read_parts(parts, partial(read, shard), ahead):
        name = part.rsplit("/", 1)[-1]
        if isinstance(found, Damage):
            findings.add("parts", found.value, [name])
            continue
        if sums.schema is None:
            sums.content, sums.schema = found.content, found.schema
        for breach in found.breaches:
            findings.add(*breach)
        wrong = any(check == "schema" for check, *_ in found.breaches)
        if not wrong and (unlike := schema_difference(sums.schema, found.schema)):
            findings.add("schema", unlike, [name])
        whole.ids += found.ids
        whole.tally.add_all(found.tally)
        sums.versions |= found.versions
    return whole


def _survey_part(
    shard: Shard, uri: str, fingerprint: dict[str, object], contents: Sequence[Content], deep: bool
) -> Survey:
    """Read one part and check all that it alone can tell."""
    name = uri.rsplit("/", 1)[-1]
    with storage.opened(uri) as opened:
        file = pq.ParquetFile(opened, pre_buffer=not deep)  # columns side by side in one request
        schema: pa.Schema = file.schema_arrow
        content = next((each for each in contents if each.column in schema.names), contents[0])
        survey = Survey(content, schema, versions={stored_metadata(schema).get("mer_ray.version", "unknown")})
        if content.schema_breaches is not None:
            survey.breaches += [(content.check, what, [name]) for what in content.schema_breaches(schema, fingerprint)]
        problem = schema_problem(schema, content)
        if problem:
            survey.breaches.append(("schema", problem, [name]))
        columns = [only for only in ("track_id",) if only in schema.names] if problem else STATUS_COLUMNS
        for batch in file.iter_batches(batch_size=BATCH_SONGS, columns=None if deep and not problem else columns):
            rows = pa.Table.from_batches([batch])
            if not problem:
                survey.breaches += [breach for breach in row_breaches(rows, content) if len(breach[2])]
                survey.tally.add(rows)
            if "track_id" in rows.column_names:
                survey.ids += rows["track_id"].cast(pa.string()).chunks
    ids = pa.chunked_array(survey.ids, pa.string()).drop_null()
    if name != part_name(ids, shard.prefix):
        survey.breaches.append(("names", "not named by the songs in them", [name]))
    return survey


def _check_ids(shard: Shard, asked: pa.ChunkedArray | None, ids: pa.ChunkedArray, findings: Findings) -> None:
    """Each song of the manifest must stand there once, and once in the parts, all in their own shard."""
    if asked is None:
        findings.say("manifest", f"no readable _run/{shard.path(MANIFEST)}")
        findings.say("ids", "nothing to compare with")
    else:
        findings.add("manifest", "ids more than once", _repeated(asked))
    findings.add("ids", "doubled", _repeated(ids))
    known = ids.drop_null()
    stray = numbers_of(known, shard.of) != shard.number
    findings.add("names", "songs in parts of another shard", known.filter(pa.array(stray)))
    if asked is not None:
        findings.add("ids", "missing", _missing(asked, ids))
        findings.add("unasked", "songs in the parts that the manifest does not list", pc.unique(_missing(ids, asked)))


def _repeated(ids: pa.ChunkedArray) -> pa.Array:
    counted = pc.value_counts(ids)
    return counted.field("values").filter(pc.greater(counted.field("counts"), 1))


def _missing(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids that are not among others."""
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others.combine_chunks())))


def _check_summary(uri: str, run: RunFiles, counts: dict[str, Any], findings: Findings) -> None:
    summary = storage.read_json(run_file(uri, SUMMARY))
    if summary is None:
        findings.say("summary", f"no readable _run/{SUMMARY}")
        return
    found = {**counts, "job": run.job}
    audio_s, told_s = found.pop("audio_seconds"), summary.get("audio_seconds")
    # An error without a class is a null here and the text "null" in JSON.
    found["error_classes"] = {"null" if name is None else name: n for name, n in found["error_classes"].items()}
    for name, value in found.items():
        if summary.get(name) != value:
            findings.say("summary", f"{name} is {summary.get(name)}, the parts say {value}")
    if abs((told_s or 0.0) - audio_s) > 0.1 + 1e-6 * audio_s:
        findings.say("summary", f"audio_seconds is {told_s}, the parts say {audio_s:.1f}")


def _check_failures(shard: Shard, failed: pa.Table, findings: Findings) -> None:
    kind = pa.schema(STATUS_FIELDS)
    try:
        told = storage.read_table(shard.file(FAILURES), kind.names).cast(kind)
    except (OSError, pa.ArrowException) as error:
        if not (damaged(error) or isinstance(error, FileNotFoundError)):
            raise
        findings.say("failures", f"no readable _run/{shard.path(FAILURES)}")
        return
    findings.add("failures", "failed songs not listed", _missing(failed["track_id"], told["track_id"]))
    findings.add("failures", "listed songs not failed", _missing(told["track_id"], failed["track_id"]))
    same = failed.sort_by("track_id").equals(told.sort_by("track_id"))
    if not same and not findings.problem("failures"):
        findings.say("failures", "the same songs, but not the same rows as in the parts")


def _temporaries(uri: str) -> list[str]:
    """The names of half-written files, and of what was put down for a move that never came."""
    run = storage.join(uri, "_run")
    folders = () if storage.is_s3(uri) else (uri, run)
    half = [name for folder in folders for name in storage.names(folder) if storage.is_temporary(name)]
    return [shown(name) for name in [*half, *(one.name for one in storage.entries(storage.join(run, STAGED)))]]
