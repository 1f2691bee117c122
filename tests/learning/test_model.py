"""A model directory keeps all it takes to read words its way, and refuses what does not fit."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.fingerprints import weights_sha256
from mer_ray.learning.model import Model
from mer_ray.learning.projector import Projector, ProjectorShape
from mer_ray.words.embedding import embed_labels, label_model, unit
from mer_ray.words.lists import Word

DIM = 12
ENCODER: dict[str, Any] = {
    "name": "tiny",
    "revision": None,
    "weights_sha256": "a" * 64,
    "layers": [3, 6],
    "pooling": "mean",
    "window_seconds": 10.0,
    "sample_rate": 24000,
    "dtype": "float32",
    "dim": DIM,
}
FILES = ["background.safetensors", "config.json", "labels.json", "projector.safetensors"]


def small_model(seed: int = 0) -> Model:
    """A model with the real sentence encoder's identity and a projector drawn at random."""
    torch.manual_seed(seed)
    shape = ProjectorShape(input_dim=DIM, hidden_dim=16, heads=2)
    projector = Projector(shape)
    projector.set_feature_scale(torch.full((DIM,), 0.5), torch.full((DIM,), 2.0))
    config = {
        "projector": asdict(shape),
        "encoder": ENCODER,
        "label_model": {"name": "auto", "weights_sha256": weights_sha256(label_model())},
        "readings": {"targets": "labels", "ranking": "standardized"},
    }
    labels = {
        "words": ["calm", "sad"],
        "phrases": {"calm": ["peaceful", "serene"], "sad": ["sad"]},
        "datasets": {"x": ["calm", "sad"]},
    }
    background = unit(np.random.default_rng(seed).normal(size=(50, 384)))
    return Model(projector.eval(), config, labels, background)


def store(**changes: Any) -> Store:
    return Store("/features", ["/features/part-0.parquet"], {**ENCODER, **changes}, changes.get("dim", DIM))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_model().save(str(tmp_path / "model"))
    return tmp_path / "model"


def test_a_saved_model_comes_back_the_same(folder: Path) -> None:
    model, loaded = small_model(), Model.load(str(folder))
    features = np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float16)
    np.testing.assert_array_equal(loaded.project(features), model.project(features))
    assert loaded.config == model.config
    assert loaded.labels == model.labels
    assert not loaded.projector.training
    np.testing.assert_allclose(loaded.background, model.background, atol=1e-3)
    assert loaded.digest == model.digest


def test_projections_are_unit_vectors_in_the_space_of_words() -> None:
    projected = small_model().project(np.random.default_rng(1).normal(size=(7, DIM)))
    assert projected.shape == (7, 384)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)
    assert small_model().project(np.zeros((0, DIM), np.float16)).shape == (0, 384)


def test_the_directory_holds_safetensors_and_json_and_no_pickle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for name in FILES:
        if name.endswith(".json"):
            assert json.loads((folder / name).read_text())
        else:
            with safe_open(folder / name, "pt") as tensors:
                assert list(tensors.keys())


def test_the_digest_changes_with_weights_labels_and_configuration() -> None:
    digests = {small_model().digest, small_model(1).digest}
    relabelled, configured = small_model(), small_model()
    relabelled.labels["words"] = ["calm", "gloomy"]
    configured.config["readings"] = {"targets": "clusters"}
    digests |= {relabelled.digest, configured.digest}
    nudged = small_model()
    with torch.no_grad():
        nudged.projector.output.bias[0] += 1e-3
    assert len(digests | {nudged.digest}) == 5
    assert small_model().digest == small_model().digest


@pytest.mark.parametrize("name", FILES)
def test_a_directory_without_one_of_its_files_is_not_a_model(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match="no finished model there; train one"):
        Model.load(str(folder))


def test_no_directory_and_a_file_are_not_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished model there"):
        Model.load(str(tmp_path / "none"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="damaged or not a model"):
        Model.load(str(tmp_path / "file"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe\x00"])
def test_damaged_files_are_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="damaged or not a model"):
        Model.load(str(folder))


@pytest.mark.parametrize("config", ["{}", "[]", '{"projector": {"input_dim": 12, "surprise": 1}}'])
def test_a_configuration_of_something_else_is_refused(folder: Path, config: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(InputError, match="damaged or not a model"):
        Model.load(str(folder))


def test_tensors_of_another_model_are_refused(folder: Path) -> None:
    save_file({"else": torch.zeros(3)}, folder / "background.safetensors")
    with pytest.raises(InputError, match="damaged or not a model"):
        Model.load(str(folder))
    small_model().save(str(folder))
    save_file(Projector(ProjectorShape(input_dim=9, hidden_dim=16, heads=2)).state_dict(), folder / FILES[3])
    with pytest.raises(InputError, match="damaged or not a model"):
        Model.load(str(folder))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "m-a-p/MERT-v1-95M", "weights_sha256": "b" * 64}, "encoder is m-a-p/MERT-v1-95M there, tiny asked"),
        ({"layers": [3, 9]}, r"layers is \[3, 9\] there, \[3, 6\] asked"),
        ({"pooling": "first"}, "pooling is 'first' there, 'mean' asked"),
        ({"window_seconds": 5.0}, "window_seconds is 5.0 there, 10.0 asked"),
        ({"dim": 24}, "dim is 24 there, 12 asked"),
    ],
)
def test_features_of_another_kind_are_refused_by_name_of_what_differs(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        small_model().check_features(store(**changes))
    assert str(caught.value).startswith("features /features: not what the model was trained on")
    assert str(caught.value).count(" there, ") == 1


def test_the_same_weights_from_elsewhere_or_in_another_arithmetic_are_welcome() -> None:
    model = small_model()
    model.check_features(store())
    model.check_features(store(name="/models/mert", revision="abc", dtype="bfloat16", licence="other"))


def test_words_trained_on_keep_their_phrases_unless_others_are_given() -> None:
    model = small_model()
    calm, happy = model.embed([Word.of("calm"), Word.of("happy")])
    expected = embed_labels(["calm"], phrases={"calm": ("peaceful", "serene")})[0]
    np.testing.assert_allclose(calm, expected, atol=1e-5)
    np.testing.assert_allclose(happy, embed_labels(["happy"])[0], atol=1e-5)
    given = model.embed([Word.of("calm", "quiet night")])[0]
    np.testing.assert_allclose(given, embed_labels(["quiet night"])[0], atol=1e-5)


def test_another_sentence_encoder_than_the_training_used_is_refused() -> None:
    model = small_model()
    model.config["label_model"]["weights_sha256"] = "0" * 64
    with pytest.raises(InputError, match="label model auto: other weights"):
        model.embed([Word.of("calm")])


def test_a_word_of_another_script_is_read_by_its_english_phrases_alone() -> None:
    with pytest.raises(InputError, match="'悲しい': not in Latin letters"):
        small_model().embed([Word.of("悲しい")])
    assert small_model().embed([Word.of("悲しい", "sad")]).shape == (1, 384)
