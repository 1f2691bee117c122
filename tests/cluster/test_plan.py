"""A run's pools fit the cluster, and always leave something for what feeds and empties them."""

from dataclasses import replace

import pytest

from mer_ray.cluster.extract import COMMIT_CPUS
from mer_ray.cluster.neighbours import Run
from mer_ray.cluster.nodes import Cluster, Node
from mer_ray.cluster.plan import Plan, resolve_anew, resolve_plan
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.commandline import parse
from mer_ray.errors import InputError


def cluster(*cpus: float, gpus: float = 0, memory: float = 1e12) -> Cluster:
    """Nodes of so many CPUs, the first of which has the GPUs."""
    nodes = (Node(str(at), f"host{at}", each, 0 if at else gpus, memory) for at, each in enumerate(cpus))
    return Cluster(tuple(nodes))


def plan(cpus: float, gpus: float = 0, flags: str = "", songs: int = 100_000) -> Plan:
    settings = parse(ExtractSettings, ["--catalog", "c", "--features", "f", *flags.split()])
    return resolve_plan(settings, cluster(cpus, gpus=gpus), songs, memory_mb=2_000)


@pytest.mark.parametrize("cpus", [2, 3, 4, 8, 16, 64])
@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_encoders_and_decoders_leave_room_for_commits_on_any_cluster(cpus: int, gpus: int) -> None:
    found = plan(cpus, gpus)
    assert found.decoders >= 1
    assert found.decoder_cpus > 0
    assert found.encoders >= 1
    assert found.encoder_cpus > 0
    used = found.encoders * found.encoder_cpus + found.decoders * found.decoder_cpus
    assert used + COMMIT_CPUS <= cpus
    assert found.gpus == gpus
    assert not gpus or found.encoders == gpus


def test_a_gpu_cluster_gives_most_cpus_to_decoding_and_a_cpu_cluster_to_encoding() -> None:
    assert plan(64, 4).decoders > 50
    found = plan(64)
    assert found.encoders > 2 * found.decoders > 8


def test_more_gpus_than_there_are_is_refused_and_fewer_are_taken() -> None:
    with pytest.raises(InputError, match="--gpus 2: the cluster has 0"):
        plan(8, 0, flags="--gpus 2")
    with pytest.raises(InputError, match="--gpus 5: the cluster has 4"):
        plan(8, 4, flags="--gpus 5")
    assert plan(8, 4, flags="--gpus 2").encoders == 2
    on_cpu = plan(8, 4, flags="--gpus 0")
    assert on_cpu.gpus == 0


@pytest.mark.parametrize("flags", ["--decoders 1000", "--decoders 8", "--encoders 4 --decoders 9"])
@pytest.mark.parametrize("gpus", [0, 4])
def test_more_decoders_than_the_cpus_hold_are_refused(gpus: int, flags: str) -> None:
    with pytest.raises(InputError, match="do not fit the cluster's 8 CPUs"):
        plan(8, gpus, flags=flags)


@pytest.mark.parametrize(
    ("flags", "gpus", "encoders"),
    [
        ("--encoders 4", 1, 1),
        ("--gpus 4", 3, 3),
        ("--gpus 0 --decoders 9", 1, 5),
        ("--decoders 11", 2, 2),
    ],
)
def test_a_later_pass_takes_what_is_left_where_nodes_went_that_were_asked_for(
    flags: str, gpus: int, encoders: int
) -> None:
    settings = parse(ExtractSettings, ["--catalog", "c", "--features", "f", *flags.split()])
    assert resolve_plan(settings, cluster(16, gpus=4), 1_000, memory_mb=2_000) == resolve_anew(
        settings, cluster(16, gpus=4), 1_000, memory_mb=2_000
    )
    left = cluster(8, gpus=gpus)
    with pytest.raises(InputError):
        resolve_plan(settings, left, 1_000, memory_mb=2_000)
    found = resolve_anew(settings, left, 1_000, memory_mb=2_000)
    assert found.encoders == encoders
    assert found.most_encoders <= (settings.encoders or 1_000)
    assert bool(found.gpus) is (settings.gpus != 0)


def test_more_encoders_than_the_gpus_hold_are_refused_and_fit_where_they_share_them() -> None:
    with pytest.raises(InputError, match="share a GPU among several with --gpus-per-encoder"):
        plan(16, 2, flags="--encoders 3")
    shared = plan(16, 2, flags="--gpus-per-encoder 0.25")
    assert (shared.encoders, shared.gpus, shared.gpus_per_encoder) == (8, 2, 0.25)
    assert shared.encoders * shared.encoder_cpus < 16 / 2 + 0.1
    assert plan(16, 2, flags="--encoders 3 --gpus-per-encoder 0.5").gpus == 2


def test_few_songs_start_few_encoders_however_many_gpus_there_are() -> None:
    assert plan(400, 200, songs=20).encoders == 1
    assert plan(400, 200, songs=20).most_encoders == 1
    assert plan(400, 200, songs=640).encoders == 20
    assert plan(64, songs=6).encoders == 3


def test_a_pool_on_gpus_grows_with_the_nodes_that_join_unless_a_number_was_asked_for() -> None:
    assert plan(8, 1).most_encoders > 1_000
    assert plan(8, 4, flags="--gpus 2").most_encoders == 2
    assert plan(8, 4, flags="--encoders 3").most_encoders == 3


def test_no_node_is_packed_with_more_decoders_than_it_has_memory_for() -> None:
    settings = parse(ExtractSettings, ["--catalog", "c", "--features", "f", "--gpus", "0"])
    roomy = resolve_plan(settings, cluster(64, 64), 100_000, memory_mb=2_000)
    tight = resolve_plan(settings, cluster(64, 64, memory=9e9), 100_000, memory_mb=2_000)
    assert (roomy.decoders, tight.decoders) == (32, 2 * 4)
    assert tight.decoder_memory == 2_000_000_000
    small = resolve_plan(settings, cluster(4, memory=1e9), 100_000, memory_mb=2_000)
    assert (small.decoders, small.decoder_memory) == (1, 900_000_000)


def test_encoders_that_would_hold_what_is_left_of_a_cluster_no_longer_fit() -> None:
    found = plan(6)
    assert found.encoders == 4
    assert found.fits(cluster(2, 2, 2))
    assert not found.fits(cluster(2, 2))
    on_gpus = plan(8, 2)
    assert on_gpus.fits(cluster(8, gpus=1))


def test_a_pool_on_cpus_is_outgrown_by_nodes_that_hold_an_encoder_more_if_the_songs_are_worth_it() -> None:
    assert plan(4).outgrown_by(cluster(4, 2))
    assert not plan(4).outgrown_by(cluster(4))
    assert not plan(4, songs=4).outgrown_by(cluster(4, 2))
    assert not plan(4, flags="--encoders 1").outgrown_by(cluster(4, 64))
    assert not plan(4, 1).outgrown_by(cluster(4, 64, gpus=8))


ANOTHER = Run(0.0, "extract", 1, "host", "01")


def shared(*cpus: float, gpus: float = 0, runs: int = 1) -> Cluster:
    """A cluster in which other extracts are at work."""
    return replace(cluster(*cpus, gpus=gpus), others=(ANOTHER,) * runs)


def test_runs_side_by_side_plan_for_their_share_and_together_leave_room_to_decode() -> None:
    settings = parse(ExtractSettings, ["--catalog", "c", "--features", "f"])
    own = resolve_plan(settings, shared(2, 2), 100, memory_mb=2_000)
    held = own.encoders * own.encoder_cpus + own.decoders * own.decoder_cpus + COMMIT_CPUS
    assert 2 * held <= 4
    on_gpus = resolve_plan(settings, shared(16, gpus=4), 10_000, memory_mb=2_000)
    assert (on_gpus.encoders, on_gpus.most_encoders) == (2, 2)
    assert resolve_plan(settings, shared(16, gpus=1), 10_000, memory_mb=2_000).encoders == 1
    tags = replace(cluster(16, gpus=4), others=(ANOTHER._replace(job="tag"),))
    assert resolve_plan(settings, tags, 10_000, memory_mb=2_000).gpus == 4, "tag takes no GPU"
    asked = parse(ExtractSettings, ["--catalog", "c", "--features", "f", "--encoders", "3", "--decoders", "1"])
    assert resolve_plan(asked, shared(2, 2), 100, memory_mb=2_000).encoders == 3, "who divides it by hand is heard"


def test_a_share_that_gets_smaller_or_larger_is_noticed() -> None:
    alone, beside, crowd = plan(4), shared(4), shared(4, runs=7)
    assert alone.crowds(beside, cluster(4))
    assert not alone.crowds(cluster(4), cluster(4))
    assert not alone.crowds(beside, beside), "it was planned so"
    assert crowd.own_cpus == 2, "no share is too small to work with"
    settings = parse(ExtractSettings, ["--catalog", "c", "--features", "f"])
    for there in (shared(4), shared(16, gpus=4)):
        own = resolve_plan(settings, there, 10_000, memory_mb=2_000)
        assert own.outgrown_by(replace(there, others=()))
        assert not own.outgrown_by(there)


def test_a_cluster_without_cpus_is_refused() -> None:
    with pytest.raises(InputError, match="no CPU is free"):
        plan(0)


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_one_cpu_is_refused_rather_than_left_to_hang(gpus: int) -> None:
    with pytest.raises(InputError, match="one CPU is too few"):
        plan(1, gpus)


def test_what_is_asked_for_is_kept() -> None:
    flags = "--encoders 2 --decoders 3 --batch-windows 5 --songs-per-part 7"
    found = plan(8, flags=flags)
    assert (found.encoders, found.decoders, found.batch_windows, found.songs_per_part(9_999)) == (2, 3, 5, 7)
    assert (plan(8, 1).batch_windows, plan(8).batch_windows) == (64, 8)


@pytest.mark.parametrize("songs", [0, 1, 20, 5_000, 1_000_000])
def test_parts_and_blocks_have_a_sensible_size_for_any_catalogue(songs: int) -> None:
    found = plan(8)
    assert 8 <= found.songs_per_part(songs) <= 256
    assert 1 <= found.songs_per_block(songs) <= 128
    assert found.songs_per_block(songs) * found.decoders <= max(songs / 32, found.decoders), (
        "the last tasks end together"
    )


def test_the_plan_is_told_in_one_line_with_its_sizes() -> None:
    line = plan(8, 4).describe("bfloat16", 1_000)
    assert "\n" not in line
    assert "4 encoders (4 GPUs, bfloat16, 64 windows a batch)" in line
    assert "3 decoders" in line
    assert "1 encoder (CPU" in plan(2).describe("float32", 1_000)
