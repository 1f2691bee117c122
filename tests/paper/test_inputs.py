"""What a reproduction is made of is known before anything is trained, and told apart when it changes."""

from pathlib import Path

import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.demo.simulated import simulate_manifests, simulate_store
from mer_ray.errors import InputError
from mer_ray.paper.inputs import Given, read_inputs
from mer_ray.paper.settings import ReproduceSettings


@pytest.fixture(scope="module")
def manifest() -> pa.Table:
    """Simulated Emotify of 60 songs."""
    return simulate_manifests(0, (60, 60, 60))["emotify"]


def inputs(folder: Path, manifest: pa.Table, extracted: pa.Table, seeds: int = 1) -> Given:
    storage.write_table(str(folder / "emotify.parquet"), manifest)
    simulate_store([extracted], str(folder / "features"), dim=4, windows=1)
    asked = {"emotify": str(folder / "emotify.parquet"), "features": [str(folder / "features")], "output": str(folder)}
    return read_inputs(ReproduceSettings(**asked, seeds=seeds))["emotify"]


def test_songs_are_counted_that_have_features(tmp_path: Path, manifest: pa.Table) -> None:
    half = manifest.take([*range(0, 60, 2)])
    given = inputs(tmp_path, manifest, half)
    splits = half["split"].to_pylist()
    expected = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "validation", "test"))
    assert given.counts() == f"{expected}; 30 of 60 have no features"
    assert given.state.startswith("30 of 60 songs with features (")


def test_more_features_are_another_state_and_the_same_are_the_same(tmp_path: Path, manifest: pa.Table) -> None:
    before = inputs(tmp_path, manifest, manifest.slice(0, 50)).state
    assert inputs(tmp_path, manifest, manifest.slice(0, 50)).state == before
    assert inputs(tmp_path, manifest, manifest).state != before


def test_another_truth_is_another_state(tmp_path: Path, manifest: pa.Table) -> None:
    before = inputs(tmp_path, manifest, manifest).state
    labels = manifest["labels"].to_pylist()
    turned = manifest.set_column(4, manifest.schema.field(4), pa.array(labels[1:] + labels[:1], pa.list_(pa.string())))
    assert inputs(tmp_path, turned, manifest).state != before


def test_a_split_without_features_is_refused_by_name(tmp_path: Path, manifest: pa.Table) -> None:
    rows = [at for at, split in enumerate(manifest["split"].to_pylist()) if split != "test"]
    with pytest.raises(InputError, match=r"--emotify .*none of its 4 test songs has features in .*extract them first"):
        inputs(tmp_path, manifest, manifest.take(rows))


def test_seeds_need_splits_that_no_seed_draws(tmp_path: Path, manifest: pa.Table) -> None:
    bare = manifest.set_column(3, "split", pa.nulls(60, pa.string()))
    assert inputs(tmp_path, bare, manifest).state
    with pytest.raises(InputError, match="states no splits, so that each seed would test other songs"):
        inputs(tmp_path, bare, manifest, seeds=2)
