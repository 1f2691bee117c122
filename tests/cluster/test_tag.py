"""What of a store a run has to read."""

import pyarrow as pa

from mer_ray.cluster.settings import TagSettings
from mer_ray.cluster.store_songs import WORK, by_part
from mer_ray.cluster.tag import SONGS_PER_PROCESS, as_trained, processes
from mer_ray.commandline import parse
from tests.learning.test_model import ENCODER, small_model

ROWS = pa.table({"track_id": list("abcdef"), "part": ["p", "p", "q", "q", "r", "r"]})


def test_only_parts_with_wanted_songs_are_read_and_ids_go_along_where_not_all_are_wanted() -> None:
    work = by_part(ROWS, pa.array(list("fabzc")))
    assert work.schema == WORK
    assert sorted(work.to_pylist(), key=lambda row: row["part"]) == [
        {"part": "p", "wanted": None},
        {"part": "q", "wanted": ["c"]},
        {"part": "r", "wanted": ["f"]},
    ]


def test_where_nothing_is_wanted_nothing_is_read() -> None:
    assert len(by_part(ROWS, pa.array([], pa.string()))) == 0


def test_a_few_songs_are_worth_one_process_and_many_all_cpus_as_far_as_there_are_parts() -> None:
    assert processes(SONGS_PER_PROCESS, parts=9, cpus=16) == 1
    assert processes(SONGS_PER_PROCESS + 1, parts=9, cpus=16) == 2
    assert processes(1_000_000, parts=900, cpus=16) == 16
    assert processes(1_000_000, parts=9, cpus=16) == 9
    assert processes(0, parts=0, cpus=16) == 1


def test_a_catalogue_is_encoded_as_the_models_songs_were_unless_an_encoder_is_given() -> None:
    flags = ["--catalog", "/music", "--features", "/f", "--model", "/m", "--labels", "gems", "--output", "/o"]
    model = small_model()
    trained = as_trained(parse(TagSettings, flags), model)
    assert trained.encoder == "tiny"
    assert trained.part("encoder").layers == (3, 6)
    assert trained.resolved()["layers"] == (3, 6)
    model.config = {**model.config, "encoder": {**ENCODER, "window_seconds": 5.0, "pooling": "first"}}
    trained = as_trained(parse(TagSettings, flags), model)
    assert (trained.window_seconds, trained.part("encoder").pooling) == (5.0, "first")
    given = parse(TagSettings, [*flags, "--encoder", "random"])
    assert as_trained(given, model) is given
