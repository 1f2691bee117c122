"""Whether an output directory keeps its promises: its parts against its manifest, schema and summary.

Parts are read a few songs at a time; what grows with the catalogue are the ids and the failed rows.
Nothing is written and no lock is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.contract import Findings, row_breaches, schema_difference, schema_problem, shown
from mer_ray.runs.directory import FAILURES, MANIFEST, SETTINGS, SUMMARY, run_file
from mer_ray.runs.status import TRAINING, RunFiles, open_run, read_asked
from mer_ray.runs.tally import Tally
from mer_ray.songs import (
    FEATURES_AHEAD,
    STATUS_FIELDS,
    Content,
    Damage,
    damaged,
    part_name,
    part_uris,
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
        ids: of every row, those of parts whose other columns are wrong as well.
        tally: of the rows that are as they should be.
        versions: of the code that wrote the parts.
    """

    content: Content
    schema: pa.Schema | None = None
    findings: Findings = field(default_factory=Findings)
    ids: list[pa.Array] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    versions: set[str] = field(default_factory=set)

    def add(self, name: str, part: Survey) -> None:
        """Take in what one part brought to light, and compare it with the first."""
        self.schema = self.schema or part.schema
        self.findings.add_all(part.findings)
        unlike = "" if part.findings.problem("schema") else schema_difference(self.schema, part.schema)
        if unlike:
            self.findings.add("schema", unlike, [name])
        self.ids += part.ids
        self.tally.add_all(part.tally)
        self.versions |= part.versions


def validate(uri: str, contents: Sequence[Content]) -> Report:
    """Check an output directory of extract or tag.

    Args:
        uri: local or ``s3://``.
        contents: what the parts may hold; the first one if there is nothing to tell by.

    Raises:
        InputError: it is none, or it cannot be read.
    """
    with storage.readable(uri):
        run = open_run(uri)
        if run.job == TRAINING:
            raise InputError(f"--run {uri}: a model directory; validate checks what extract and tag wrote.")
        survey, parts = _survey(uri, run, contents)
        manifest, asked = _check_manifest(uri)
        once, notes = _check_ids(asked, pa.chunked_array(survey.ids, pa.string()))
        complete = not (manifest.problem or once.problem)
        success = storage.exists(storage.join(uri, "_SUCCESS"))
        at_work = run.lock is not None and run.lock.alive
        checks = [_check_settings(run), manifest, *_part_checks(survey, parts), once]
        checks.append(_check_summary(uri, run, survey.tally) if success else Check("summary", "", "not finished"))
        checks.append(_check_failures(uri, survey.tally) if success else Check("failures", "", "not finished"))
        checks += [_check_success(success, complete, at_work), _check_temporaries(uri, at_work)]
    if run.lock is not None and at_work:
        notes.insert(0, f"the {run.lock.job} run with process {run.lock.process} on {run.lock.host} is at work here")
    if len(survey.versions) > 1:
        notes.append(f"parts were written by versions {', '.join(sorted(survey.versions))}")
    return Report(uri, run.job, checks, notes)


def _survey(uri: str, run: RunFiles, contents: Sequence[Content]) -> tuple[Survey, int]:
    """What all parts bring to light, and how many there are."""
    parts = part_uris(uri)
    told = [content for content in contents if run.job in content.jobs]
    whole = Survey((told or contents)[0])
    read = partial(_survey_part, fingerprint=run.settings.get("fingerprint", {}), contents=told or contents)
    for part, found in read_parts(parts, read, FEATURES_AHEAD):
        name = part.rsplit("/", 1)[-1]
        if isinstance(found, Damage):
            whole.findings.add("parts", found.value, [name])
        else:
            whole.content = whole.content if whole.schema else found.content
            whole.add(name, found)
    return whole, len(parts)


def _survey_part(uri: str, fingerprint: dict[str, object], contents: Sequence[Content]) -> Survey:
    """Read one part and check all that it alone can tell."""
    name = uri.rsplit("/", 1)[-1]
    fs, path = storage.filesystem(uri)
    with storage.guarded(uri), fs.open(path, "rb") as opened:
        file = pq.ParquetFile(opened)
        schema: pa.Schema = file.schema_arrow
        content = next((each for each in contents if each.column in schema.names), contents[0])
        survey = Survey(content, schema, versions={stored_metadata(schema).get("mer_ray.version", "unknown")})
        for what in content.schema_breaches(schema, fingerprint):
            survey.findings.add(content.check, what, [name])
        problem = schema_problem(schema, content)
        if problem:
            survey.findings.add("schema", problem, [name])
        columns = [only for only in ("track_id",) if only in schema.names] if problem else None
        for batch in file.iter_batches(batch_size=BATCH_SONGS, columns=columns):
            rows = pa.Table.from_batches([batch])
            if not problem:
                for check, what, songs in row_breaches(rows, content):
                    survey.findings.add(check, what, songs)
                survey.tally.add(rows)
            if "track_id" in rows.column_names:
                survey.ids += rows["track_id"].cast(pa.string()).chunks
    if name != part_name(pa.table({"track_id": pa.chunked_array(survey.ids, pa.string()).drop_null()})):
        survey.findings.add("names", "not named by the songs in them", [name])
    return survey


def _part_checks(survey: Survey, parts: int) -> list[Check]:
    problem, content = survey.findings.problem, survey.content
    songs, failed = survey.tally.songs, len(survey.tally.failed)
    return [
        Check("parts", problem("parts"), f"{parts:,}, each with a footer"),
        Check("schema", problem("schema"), "the same in all parts"),
        Check(content.check, problem(content.check), content.shown(survey.schema)),
        Check("names", problem("names"), "each part is named by its songs"),
        Check("status", problem("status"), f"{songs:,} songs"),
        Check("ok rows", problem("ok rows"), f"{songs - failed:,} songs"),
        Check("failed rows", problem("failed rows"), f"{failed:,} songs, each with its reason"),
    ]


def _check_settings(run: RunFiles) -> Check:
    whole = {"job", "fingerprint"} <= run.settings.keys()
    return Check("settings", "" if whole else f"no readable _run/{SETTINGS} with job and fingerprint", run.job)


def _check_manifest(uri: str) -> tuple[Check, pa.ChunkedArray | None]:
    asked = read_asked(uri)
    if asked is None:
        return Check("manifest", f"no readable _run/{MANIFEST}"), None
    findings = Findings()
    findings.add("manifest", "ids more than once", _repeated(asked))
    return Check("manifest", findings.problem("manifest"), f"{len(asked):,} songs asked"), asked


def _check_ids(asked: pa.ChunkedArray | None, ids: pa.ChunkedArray) -> tuple[Check, list[str]]:
    findings = Findings()
    findings.add("ids", "doubled", _repeated(ids))
    if asked is None:
        return Check("ids", "; ".join(filter(None, ["nothing to compare with", findings.problem("ids")]))), []
    findings.add("ids", "missing", asked.filter(pc.invert(pc.is_in(asked, value_set=ids.combine_chunks()))))
    unasked = pc.unique(ids.filter(pc.invert(pc.is_in(ids, value_set=asked.combine_chunks()))))
    findings.add("unasked", "songs in the parts that the manifest does not list", unasked)
    note = findings.problem("unasked")
    return Check("ids", findings.problem("ids"), "each in the parts exactly once"), [note] if note else []


def _repeated(ids: pa.ChunkedArray) -> pa.Array:
    counted = pc.value_counts(ids)
    return counted.field("values").filter(pc.greater(counted.field("counts"), 1))


def _check_summary(uri: str, run: RunFiles, tally: Tally) -> Check:
    summary = storage.read_json(run_file(uri, SUMMARY))
    if summary is None:
        return Check("summary", f"no readable _run/{SUMMARY}")
    found = {**tally.counts(), "job": run.job}
    audio_s, told_s = found.pop("audio_seconds"), summary.get("audio_seconds")
    # An error without a class is a null here and the text "null" in JSON.
    found["error_classes"] = {"null" if name is None else name: n for name, n in found["error_classes"].items()}
    told = {name: summary.get(name) for name in found}
    unlike = [f"{name} is {told[name]}, the parts say {found[name]}" for name in found if told[name] != found[name]]
    if abs((told_s or 0.0) - tally.audio_s) > 0.1 + 1e-6 * tally.audio_s:
        unlike.append(f"audio_seconds is {told_s}, the parts say {audio_s:.1f}")
    return Check("summary", "; ".join(unlike), "counts as the parts do")


def _check_failures(uri: str, tally: Tally) -> Check:
    kind = pa.schema(STATUS_FIELDS)
    try:
        told = storage.read_table(run_file(uri, FAILURES), kind.names).cast(kind)
    except (OSError, pa.ArrowException) as error:
        if not (damaged(error) or isinstance(error, FileNotFoundError)):
            raise
        return Check("failures", f"no readable _run/{FAILURES}")
    failed = tally.failed
    ids, listed = failed["track_id"].combine_chunks(), told["track_id"].combine_chunks()
    findings = Findings()
    findings.add("failures", "failed songs not listed", ids.filter(pc.invert(pc.is_in(ids, value_set=listed))))
    findings.add("failures", "listed songs not failed", listed.filter(pc.invert(pc.is_in(listed, value_set=ids))))
    problem = findings.problem("failures")
    if not problem and not failed.sort_by("track_id").equals(told.sort_by("track_id")):
        problem = "the same songs, but not the same rows as in the parts"
    return Check("failures", problem, f"lists the {len(told):,} failed songs")


def _check_success(success: bool, complete: bool, at_work: bool) -> Check:
    if success and not complete:
        return Check("_SUCCESS", "there, although not every song is in the parts once")
    if complete and not success and not at_work:
        return Check("_SUCCESS", "not there, although every song is in the parts; run the same command again")
    return Check("_SUCCESS", "", "there" if success else "not there")


def _check_temporaries(uri: str, at_work: bool) -> Check:
    names: list[str] = []
    for folder in (uri, storage.join(uri, "_run")):
        listed = storage.names(folder)
        names += sorted(shown(name) for name in listed if name.startswith(".") and name.endswith(".tmp"))
    findings = Findings()
    findings.add("temporaries", "left by killed writers", [] if at_work else names)
    return Check("temporaries", findings.problem("temporaries"), "of the run at work" if at_work else "none left")
