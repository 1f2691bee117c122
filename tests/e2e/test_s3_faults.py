"""Songs, features and tags in a bucket of a storage that has a bad night."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_ray import storage
from tests.conftest import Job, done, refused
from tests.e2e.test_s3 import rows
from tests.support.faults import Fault, FaultyProxy
from tests.support.s3 import S3Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def night(world: Path, s3: S3Server) -> str:
    """A place in the bucket with thirty songs and their table."""
    uri = f"s3://{s3.bucket}/night"
    copy(world / "demo-gems", f"{uri}/demo-gems")
    storage.write_bytes(f"{uri}/demo-gems.tsv", (world / "demo-gems.tsv").read_bytes())
    return uri


def copy(folder: Path, uri: str) -> None:
    """Put all files below a folder into the bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            storage.write_bytes(storage.join(uri, str(file.relative_to(folder))), file.read_bytes())


def extracting(night: str, features: str) -> tuple[str, ...]:
    """Flags of an extract of the songs in the bucket."""
    return ("--catalog", f"{night}/demo-gems.tsv", "--features", features, "--encoder", "descriptors")


def summary(uri: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(storage.read_bytes(f"{uri}/_run/summary.json"))
    return told


def assert_same_features(uri: str, store: Path) -> None:
    """Raise unless each song stands there once, with the features of the undisturbed store."""
    here, there = rows(str(store / "features")), rows(uri)
    assert there["track_id"].to_pylist() == here["track_id"].to_pylist()
    assert set(there["status"].to_pylist()) == {"ok"}
    for one, two in zip(here["features"], there["features"], strict=True):
        np.testing.assert_allclose(np.array(two.as_py()), np.array(one.as_py()), atol=1e-3)


def test_a_bad_night_loses_nothing_doubles_nothing_and_says_what_it_repeated(
    night: str, store: Path, model: Path, job: Job, faults: FaultyProxy
) -> None:
    songs, features, tags = r"/night/demo-gems/", f"{night}-features", f"{night}-tags"
    copy(model, f"{night}-model")
    faults.inject(
        Fault("503", path=songs, share=0.15, times=1),
        Fault("reset", path=songs, share=0.15, times=1),
        Fault("truncated", path=songs, share=0.15, times=1),
        Fault("500", method="GET|HEAD|PUT", path="/night-(features|tags)/", share=0.08, times=1),
        Fault("slow", method=".*", share=0.1, seconds=0.2),
        Fault("hang up", method="GET|HEAD|PUT", path="/night-(features|tags)/", share=0.08, times=1),
    )
    printed = done(job("extract", *extracting(night, features), "--songs-per-part", 8))
    repeated = sum(faults.injected[kind] for kind in ("503", "reset", "truncated"))
    assert repeated >= 3, faults.injected
    assert min(faults.injected[kind] for kind in ("500", "slow", "hang up")) > 0, faults.injected
    run = summary(features)["this_run"]
    assert run["fetch_retries"] == repeated
    assert run["fetch_retry_s"] > 0
    assert f"{repeated} fetches repeated" in printed
    assert_same_features(features, store)
    labels = ("--model", f"{night}-model", "--labels", "gems")
    assert "repeated" not in done(job("tag", "--features", features, *labels, "--output", tags))
    assert Counter(rows(tags)["track_id"].to_pylist()) == Counter(rows(features)["track_id"].to_pylist())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            Fault("500", method="PUT", path="/part-", after=2),
            r"/part-\w+\.parquet\S*: cannot be written .*run the same",
        ),
        (Fault("expired", method=".*", path="demo-gems/", after=12), "have expired.*; run the same command again with"),
    ],
    ids=["no part can be written", "credentials expire"],
)
def test_what_does_not_pass_ends_the_run_with_a_sentence_and_the_same_command_goes_on(
    night: str, store: Path, job: Job, faults: FaultyProxy, fault: Fault, said: str
) -> None:
    features = f"{night}-features-{fault.kind}"
    flags = (*extracting(night, features), "--songs-per-part", 2, "--patience-minutes", 0)
    faults.inject(fault)
    assert re.search(said, refused(job("extract", *flags)))
    faults.inject()
    assert not any(name == "_SUCCESS" for name in storage.names(features))
    assert "0 failed" in done(job("extract", *flags))
    assert_same_features(features, store)


def test_credentials_that_are_renewed_and_a_storage_that_is_overrun_cost_no_song(
    night: str, store: Path, job: Job, faults: FaultyProxy
) -> None:
    features = f"{night}-features-overrun"
    flags = (*extracting(night, features), "--songs-per-part", 2)
    overrun = Fault("503", method="GET|HEAD|PUT", share=1 / 3)
    faults.inject(Fault("expired", path="/demo-gems/", after=12), overrun)
    renewal = threading.Timer(20.0, faults.inject, [overrun])
    renewal.start()
    try:
        assert "0 failed" in done(job("extract", *flags))
    finally:
        renewal.cancel()
    faults.inject()
    assert_same_features(features, store)
