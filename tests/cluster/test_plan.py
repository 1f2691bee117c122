"""A run's pools fit the cluster, and always leave something for what feeds and empties them."""

import pytest

from mer_ray.cluster.extract import COMMIT_CPUS
from mer_ray.cluster.plan import Plan, resolve_plan
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.commandline import parse
from mer_ray.errors import InputError


def plan(cpus: float, gpus: float = 0, flags: str = "") -> Plan:
    settings = parse(ExtractSettings, ["--catalog", "c", "--features", "f", *flags.split()])
    return resolve_plan(settings, {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus})


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
    assert (on_cpu.gpus, on_cpu.device) == (0, "cpu")


@pytest.mark.parametrize("flags", ["--decoders 1000", "--decoders 8", "--encoders 4 --decoders 9"])
@pytest.mark.parametrize("gpus", [0, 4])
def test_more_decoders_than_the_cpus_hold_are_refused(gpus: int, flags: str) -> None:
    with pytest.raises(InputError, match="do not fit the cluster's 8 CPUs"):
        plan(8, gpus, flags=flags)


def test_an_encoder_count_beside_the_gpus_is_refused() -> None:
    with pytest.raises(InputError, match="one encoder a GPU"):
        plan(16, 2, flags="--encoders 3")


def test_a_cluster_without_cpus_is_refused() -> None:
    with pytest.raises(InputError, match="no CPU is free"):
        plan(0)
    with pytest.raises(InputError, match="no CPU is free"):
        resolve_plan(parse(ExtractSettings, ["--catalog", "c", "--features", "f"]), {})


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_one_cpu_is_refused_rather_than_left_to_hang(gpus: int) -> None:
    with pytest.raises(InputError, match="one CPU is too few"):
        plan(1, gpus)


def test_what_is_asked_for_is_kept() -> None:
    flags = "--encoders 2 --decoders 3 --batch-windows 5 --songs-per-part 7"
    found = plan(8, flags=flags)
    assert (found.encoders, found.decoders, found.batch_windows, found.songs_per_part(9_999)) == (2, 3, 5, 7)
    assert (plan(8, 1).device, plan(8, 1).batch_windows) == ("cuda", 64)
    assert (plan(8).device, plan(8).batch_windows) == ("cpu", 8)


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
