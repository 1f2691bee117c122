"""Whether an output directory keeps its promises: its parts against its manifest, schema and summary.

Parts are read a few songs at a time; what grows with the catalogue are the ids and the failed rows.
Nothing is written and no lock is taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import STATUS_FIELDS, part_uris
from mer_ray.runs.contract import (
    Findings,
    check_rows,
    schema_difference,
    schema_problem,
    shown,
    stored_json,
    stored_metadata,
    width,
)
from mer_ray.runs.directory import FAILURES, MANIFEST, SETTINGS, SUMMARY, part_name, read_json
from mer_ray.runs.status import TRAINING, RunFiles, damaged, open_run

BATCH_SONGS = 64
"""Songs read at a time; of two hours each, their features are a third of a gigabyte."""

_STATUS = pa.schema(STATUS_FIELDS)


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


@dataclass
class Survey:
    """What reading all parts brought to light.

    Attributes:
        content: ``features`` or ``tags``; None until a part tells, where the settings do not.
        fingerprint_dim: D as the settings state it.
        ids: of every row.
        failed: the rows that are not ok, status columns only.
        counts: as ``summary.json`` calls them.
        versions: of the code that wrote the parts.
    """

    content: str | None
    fingerprint_dim: int | None
    findings: Findings = field(default_factory=Findings)
    parts: int = 0
    first: pa.Schema | None = None
    ids: list[pa.Array] = field(default_factory=list)
    failed: list[pa.Table] = field(default_factory=lambda: [_STATUS.empty_table()])
    counts: Counter[str] = field(default_factory=Counter)
    audio_s: float = 0.0
    versions: set[str] = field(default_factory=set)

    def read(self, uri: str) -> None:
        """Read one part and check all that it alone, or beside the first one, can tell."""
        name = uri.rsplit("/", 1)[-1]
        self.parts += 1
        fs, path = storage.filesystem(uri)
        try:
            with fs.open(path, "rb") as file:
                self._read(name, pq.ParquetFile(file))
        except FileNotFoundError:
            self.findings.add("parts", "gone while they were read", [name])
        except (OSError, pa.ArrowException) as error:
            if not damaged(error):
                raise
            self.findings.add("parts", "not readable Parquet", [name])

    def _read(self, name: str, file: pq.ParquetFile) -> None:
        right = self._check_schema(name, file.schema_arrow)
        asked = stored_json(file.schema_arrow, "mer_ray.tags")
        columns = None if right else [only for only in ("track_id",) if only in file.schema_arrow.names]
        ids: list[pa.Array] = []
        for batch in file.iter_batches(batch_size=BATCH_SONGS, columns=columns):
            rows = pa.Table.from_batches([batch])
            if columns is None:
                check_rows(rows, str(self.content), asked, self.findings)
                self._count(rows)
            if "track_id" in rows.column_names:
                ids += rows["track_id"].cast(pa.string()).chunks
        self.ids += ids
        if name != part_name(pa.table({"track_id": pa.chunked_array(ids, pa.string()).drop_null()})):
            self.findings.add("names", "not named by the songs in them", [name])

    def _check_schema(self, name: str, schema: pa.Schema) -> bool:
        """Note what is wrong with a part's schema; returns whether its rows can be checked."""
        self.content = self.content or ("tags" if "tags" in schema.names else "features")
        self.first = self.first or schema
        self.versions.add(stored_metadata(schema).get("mer_ray.version", "unknown"))
        stated = [stored_json(schema, "mer_ray.encoder").get("dim"), self.fingerprint_dim]
        found = width(schema)
        if self.content == "features" and any(dim not in (None, found) for dim in stated):
            self.findings.add("width", f"of D = {found} where {next(filter(None, stated))} is stated", [name])
        problem = schema_problem(schema, self.content)
        unlike = problem or schema_difference(self.first, schema)
        if unlike:
            self.findings.add("schema", unlike, [name])
        return not problem

    def _count(self, rows: pa.Table) -> None:
        failed = rows.filter(pc.not_equal(rows["status"], "ok"))
        self.counts["songs"] += len(rows)
        self.counts["ok"] += len(rows) - len(failed)
        self.counts["failed"] += len(failed)
        self.counts["truncated"] += pc.sum(rows["truncated"]).as_py() or 0
        self.audio_s += pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0
        self.failed.append(failed.select(_STATUS.names).cast(_STATUS))


def validate(uri: str) -> Report:
    """Check an output directory of extract or tag.

    Raises:
        InputError: it is none, or it cannot be read.
    """
    with storage.readable(uri):
        run = open_run(uri)
        if run.job == TRAINING:
            raise InputError(f"--run {uri}: a model directory; validate checks what extract and tag wrote.")
        survey = _survey(uri, run)
        ids = pa.chunked_array(survey.ids, pa.string())
        manifest, asked = _check_manifest(uri)
        once, notes = _check_ids(asked, ids)
        complete = not (manifest.problem or once.problem)
        success = storage.exists(storage.join(uri, "_SUCCESS"))
        at_work = run.lock is not None and run.lock.alive
        checks = [_check_settings(run), manifest, *_part_checks(survey), once]
        checks.append(_check_summary(uri, run, survey) if success else Check("summary", "", "not finished"))
        checks.append(_check_failures(uri, survey) if success else Check("failures", "", "not finished"))
        checks += [_check_success(success, complete, at_work), _check_temporaries(uri, at_work)]
    if run.lock is not None and at_work:
        notes.insert(0, f"the {run.lock.job} run with process {run.lock.process} on {run.lock.host} is at work here")
    if len(survey.versions) > 1:
        notes.append(f"parts were written by versions {', '.join(sorted(survey.versions))}")
    return Report(uri, run.job, checks, notes)


def as_text(report: Report) -> str:
    """For a console: a line a check, then the remarks, then the sum."""
    lines = [f"{report.uri}: {report.job}"]
    for check in report.checks:
        verdict = "FAILED" if check.problem else "ok"
        lines.append(f"  {verdict:8}{check.name:13}{check.problem or check.detail}".rstrip())
    lines += [f"  {'note':8}{note}" for note in report.notes]
    broken = sum(bool(check.problem) for check in report.checks)
    total = len(report.checks)
    lines.append(f"{broken} of {total} checks FAILED" if broken else f"all {total} checks hold")
    return "\n".join(lines) + "\n"


def _survey(uri: str, run: RunFiles) -> Survey:
    content = {"tag": "tags", "extract": "features", "import": "features"}.get(run.job)
    survey = Survey(content, run.settings.get("fingerprint", {}).get("dim"))
    for part in part_uris(uri):
        survey.read(part)
    return survey


def _part_checks(survey: Survey) -> list[Check]:
    problem = survey.findings.problem
    dim = width(survey.first) if survey.first is not None else None
    songs = f"{survey.counts['songs']:,} songs"
    content = Check("tags", problem("tags"), "best first, within their limits, percentiles within 0 to 1")
    if survey.content != "tags":
        content = Check("width", problem("width"), f"D = {dim}" if dim else "no part yet")
    return [
        Check("parts", problem("parts"), f"{survey.parts:,}, each with a footer"),
        Check("schema", problem("schema"), "the same in all parts"),
        content,
        Check("names", problem("names"), "each part is named by its songs"),
        Check("status", problem("status"), songs),
        Check("ok rows", problem("ok rows"), f"{survey.counts['ok']:,} songs"),
        Check("failed rows", problem("failed rows"), f"{survey.counts['failed']:,} songs, each with its reason"),
    ]


def _check_settings(run: RunFiles) -> Check:
    whole = {"job", "fingerprint"} <= run.settings.keys()
    return Check("settings", "" if whole else f"no readable _run/{SETTINGS} with job and fingerprint", run.job)


def _check_manifest(uri: str) -> tuple[Check, pa.ChunkedArray | None]:
    try:
        asked = storage.read_table(storage.join(uri, "_run", MANIFEST), ["track_id"])["track_id"]
    except (OSError, pa.ArrowException) as error:
        if not (damaged(error) or isinstance(error, FileNotFoundError)):
            raise
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


def _check_summary(uri: str, run: RunFiles, survey: Survey) -> Check:
    summary = read_json(storage.join(uri, "_run", SUMMARY))
    if summary is None:
        return Check("summary", f"no readable _run/{SUMMARY}")
    classes = Counter(name for table in survey.failed for name in table["error_class"].to_pylist())
    found: dict[str, Any] = {name: survey.counts[name] for name in ("songs", "ok", "failed", "truncated")}
    # An error without a class is a null here and the text "null" in JSON.
    found |= {"job": run.job, "error_classes": {"null" if name is None else name: n for name, n in classes.items()}}
    told = {name: summary.get(name) for name in found}
    unlike = [f"{name} is {told[name]}, the parts say {found[name]}" for name in found if told[name] != found[name]]
    if abs((summary.get("audio_seconds") or 0.0) - survey.audio_s) > 0.1 + 1e-6 * survey.audio_s:
        unlike.append(f"audio_seconds is {summary.get('audio_seconds')}, the parts say {survey.audio_s:.1f}")
    return Check("summary", "; ".join(unlike), "counts as the parts do")


def _check_failures(uri: str, survey: Survey) -> Check:
    try:
        told = storage.read_table(storage.join(uri, "_run", FAILURES), _STATUS.names).cast(_STATUS)
    except (OSError, pa.ArrowException) as error:
        if not (damaged(error) or isinstance(error, FileNotFoundError)):
            raise
        return Check("failures", f"no readable _run/{FAILURES}")
    failed = pa.concat_tables(survey.failed)
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
