"""Models that ship: found by name wherever a model is asked for, whole as they were made, and made anew from songs."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gems
from mer_ray import models
from mer_ray.catalog.datasets import vocabularies
from mer_ray.cluster.settings import TagSettings
from mer_ray.demo.composer import compose, draw_cues
from mer_ray.encoders import load_encoder
from mer_ray.errors import InputError
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.features import Store, store_table
from mer_ray.learning.model import Model
from mer_ray.learning.settings import TrainSettings
from mer_ray.runs.songs_directory import commit
from mer_ray.tagging import Tagger
from mer_ray.tagging.settings import LabelsSettings, SearchSettings
from mer_ray.words.lists import MOODS

WORDS = vocabularies()["gems"]
COMPOSED_AS = dict(
    zip(WORDS, ("wonder", "solemn", "tender", "tender", "calm", "epic", "joyful", "tense", "sad"), strict=True)
)
FOLDER = Path(models.located("gems"))


def test_the_files_that_ship_are_those_that_were_made_and_are_small() -> None:
    sums = dict(line.split("  ")[::-1] for line in (FOLDER / gems.SUMS).read_text().splitlines())
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name != gems.SUMS}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == sums
    assert sum(map(len, files.values())) < 1_500_000


def test_its_songs_are_named_and_none_of_the_tested_is_among_them() -> None:
    seen = gems.storage.read_table(str(FOLDER / "songs.parquet"))
    assert len(seen) == 320
    first = {"classical": 0, "rock": 100, "electronic": 200, "pop": 300}
    tested = {f"emotify/{first[genre] + number}" for genre, numbers in gems.TEST.items() for number in numbers}
    assert len(tested) == 80
    assert not tested & {*seen["track_id"].to_pylist()}
    assert seen["uri"].null_count == len(seen)


def test_its_card_says_what_it_cannot() -> None:
    text = (FOLDER / "README.md").read_text()
    for said in ("research use", "do not carry a vocabulary", "a genre never heard", "chance", "What not to rely on"):
        assert said in text


def test_it_is_loaded_by_name_and_knows_its_encoder() -> None:
    tagger = Tagger.load("gems")
    encoder = load_encoder("descriptors")
    config = tagger.model.config["encoder"]
    assert (config["name"], config["dim"], config["weights_sha256"]) == ("descriptors", encoder.dim, encoder.digest)
    assert sorted(tagger.model.labels["words"]) == sorted(WORDS)
    projector = tagger.model.projector
    average_D, way_D = projector.feature_mean, projector.input.weight[tagger.model.labels["words"].index("calmness")]
    calm_D = average_D + projector.feature_std * way_D.sign()
    assert tagger.rank(calm_D[None].detach().numpy(), WORDS, k=1)[0].label == "calmness"
    assert {tag.label for tag in tagger.rank(calm_D[None].detach().numpy(), MOODS, k=2)} <= set(MOODS)


def test_a_name_stays_a_name_and_a_folder_of_that_name_is_a_path(tmp_path: Path) -> None:
    flags = {"features": "f", "labels": "moods", "output": "o"}
    for model, kept in {"gems": "gems", "./gems": os.path.abspath("gems"), "s3://a/gems": "s3://a/gems"}.items():
        assert TagSettings(model=model, **flags).model == kept
        assert SearchSettings(model=model, query=("calm",), features="f").model == kept
        assert LabelsSettings(model=model, labels="moods").model == kept
        assert EvaluateSettings(model=model, test=["t"], features=["f"], output="o").model == kept


def test_a_training_does_not_write_where_a_name_would_hide_it() -> None:
    asked = {"train": ["t"], "features": ["f"]}
    with pytest.raises(ValueError, match=r"'gems' is a model that ships; call the folder ./gems"):
        TrainSettings(model="gems", **asked)
    assert TrainSettings(model="./gems", **asked).model == os.path.abspath("gems")


def test_what_is_no_model_is_told_which_ship(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="or give one that ships: gems"):
        Model.load(tmp_path / "none")


@pytest.fixture(scope="module")
def emotify(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Emotify's layout with composed songs: ``data.csv``, and a store of their descriptors."""
    folder = tmp_path_factory.mktemp("emotify")
    encoder, rng = load_encoder("descriptors"), np.random.default_rng(0)
    rows, features = [], []
    with (folder / "data.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["track id", " genre", *(f" {word}" for word in WORDS)])
        for at in range(45):
            genre, mood = ("classical", "rock", "electronic", "pop")[at % 4], WORDS[at % 9]
            track = 100 * (at % 4) + at // 4 + 1
            samples = compose(draw_cues(COMPOSED_AS[mood], rng), seconds=10, seed=at, sample_rate=24_000)
            rows.append({"track_id": f"emotify/{track}", "uri": "x", "status": "ok", "duration_s": 10.0})
            features.append(encoder(samples[None]).numpy())
            for _ in range(5):
                votes = (rng.random(9) < 0.2) | (np.array(WORDS) == mood)
                lines.writerow([track, genre, *votes.astype(int)])
    (folder / "store").mkdir()
    commit(str(folder / "store"), store_table(rows, features, encoder.identity()))
    return folder


def test_it_is_made_anew_from_songs_and_votes_and_tells_moods_it_was_not_told(
    emotify: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gems, "DRAWS", 1)
    store = Store.open(str(emotify / "store"))
    songs = gems.Songs.read(str(emotify), store)
    space = gems.best_space()
    measured = gems.measure(songs, space, store)
    assert measured["folds"]["roc_auc"] > 0.6
    assert measured["songs"]["learned"] + measured["songs"]["tested"] == 45
    digests = []
    for name in ("one", "two"):
        model = gems.fit(songs, np.flatnonzero(~songs.tested_S), songs.words, space, store)
        gems.write(str(tmp_path / name), model, songs, measured)
        digests.append((tmp_path / name / gems.SUMS).read_text())
        assert Model.load(tmp_path / name).digest == model.digest
    assert digests[0] == digests[1]
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in FOLDER.iterdir()}
