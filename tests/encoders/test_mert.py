"""Windows become features that equal plain HuBERT's pooled hidden states."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import HubertConfig, HubertModel

from mer_ray.encoders import Encoder, load_encoder
from mer_ray.encoders._batching import Window, encode_tracks
from mer_ray.encoders._hubert import normalize
from mer_ray.errors import InputError

WINDOW = 240_000
MERT_EXTRAS: dict[str, Any] = {
    "model_type": "mert_model",
    "architectures": ["MERTModel"],
    "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "deepnorm": False,
    "attention_relax": -1.0,
    "sample_rate": 24000,
    "torch_dtype": "float32",
    "transformers_version": "4.27.1",
}


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder("tiny")


def noise(windows: int, samples: int = WINDOW, seed: int = 0) -> NDArray[np.float32]:
    scale = np.linspace(0.01, 2.0, windows)[:, None]
    return (np.random.default_rng(seed).normal(0.1, 1, (windows, samples)) * scale).astype(np.float32)


def plain_states(model: HubertModel, windows: NDArray[np.float32]) -> tuple[Tensor, ...]:
    """The hidden states of the library's own forward pass, one window at a time, normalised by the definition."""
    states = []
    for window in windows:
        ready = (window - window.mean(dtype=np.float64)) / np.sqrt(window.var(dtype=np.float64) + 1e-7)
        with torch.inference_mode():
            out = model(torch.from_numpy(ready.astype(np.float32))[None], output_hidden_states=True)
        states.append(out.hidden_states)
    return tuple(torch.cat(layer) for layer in zip(*states, strict=True))


def pooled(states: tuple[Tensor, ...], layers: tuple[int, ...] = (3, 6, 9, 12)) -> Tensor:
    return torch.cat([states[layer].mean(dim=1) for layer in layers], dim=1)


def published_names(model: HubertModel) -> dict[str, Tensor]:
    """Weights under the names of the published checkpoint (weight norm before parametrizations)."""
    renamed = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    assert {"encoder.pos_conv_embed.conv.weight_g", "encoder.pos_conv_embed.conv.weight_v"} <= renamed.keys()
    return renamed


def publish(folder: Path, model: HubertModel, **changes: Any) -> Path:
    """A directory in the layout of the hub: config.json with MERT's extra keys, pytorch_model.bin."""
    folder.mkdir()
    config = {**model.config.to_dict(), **MERT_EXTRAS, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(published_names(model), folder / "pytorch_model.bin")
    return folder


def test_features_are_the_time_means_of_hubert_states_3_6_9_and_12(tiny: Encoder) -> None:
    windows = noise(2)
    states = plain_states(tiny.encode.model, windows)
    assert len(states) == 13
    assert states[3].shape == (2, 749, 48)
    expected = pooled(states)
    features = tiny(windows)
    assert features.shape == (2, 192)
    assert features.dtype == torch.float32
    assert torch.allclose(features, expected, atol=1e-5, rtol=0)
    others = pooled(states, (2, 5, 8, 11))
    assert not torch.allclose(features, others, atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_window_has_the_same_features_in_a_batch_of_any_size(tiny: Encoder, size: int) -> None:
    window = noise(1, seed=7)
    batch = np.concatenate([noise(size - 1, seed=size) * 30, window]) if size > 1 else window
    assert torch.allclose(tiny(batch)[-1], pooled(plain_states(tiny.encode.model, window))[0], atol=1e-5, rtol=0)


def test_loudness_and_offset_do_not_matter_but_content_does(tiny: Encoder) -> None:
    window = noise(1)
    assert torch.allclose(tiny(window), tiny(window * 0.05 + 3), atol=1e-3, rtol=0)
    assert not torch.allclose(tiny(window), tiny(noise(1, seed=1)), atol=1e-3, rtol=0)


def test_normalising_gives_zero_mean_and_unit_variance_and_leaves_silence_at_zero() -> None:
    ready = normalize(torch.from_numpy(np.concatenate([noise(1) * 5 + 2, np.ones((1, WINDOW), np.float32)])))
    assert ready[0].mean().abs() < 1e-4
    assert abs(float(ready[0].var(correction=0)) - 1) < 1e-4
    assert torch.equal(ready[1], torch.zeros(WINDOW))


def test_first_pooling_is_the_first_frame_of_each_state() -> None:
    encoder = load_encoder("tiny", pooling="first")
    states = plain_states(encoder.encode.model, noise(1))
    expected = torch.cat([states[layer][:, 0] for layer in (3, 6, 9, 12)], dim=1)
    assert torch.allclose(encoder(noise(1)), expected, atol=1e-5, rtol=0)
    assert encoder.settings == {"layers": (3, 6, 9, 12), "pooling": "first"}


@pytest.mark.parametrize("samples", [400, 24_000, 100_001])
def test_a_shorter_window_is_encoded_as_it_is_without_padding(tiny: Encoder, samples: int) -> None:
    window = noise(1, samples)
    assert torch.allclose(tiny(window), pooled(plain_states(tiny.encode.model, window)), atol=1e-5, rtol=0)


def test_a_window_too_short_for_a_frame_is_named(tiny: Encoder) -> None:
    with pytest.raises(ValueError, match="399 samples; 400 make a frame"):
        tiny(noise(1)[:, :399])


def test_layers_are_kept_in_the_order_asked_for() -> None:
    encoder = load_encoder("tiny", layers=(12, 1))
    expected = pooled(plain_states(encoder.encode.model, noise(1)), (12, 1))
    assert torch.allclose(encoder(noise(1)), expected, atol=1e-5, rtol=0)
    assert encoder.dim == 96


def test_no_hook_stays_on_the_model_after_encoding() -> None:
    encoder = load_encoder("tiny")
    encoder(noise(1, 24_000))
    assert not any(module._forward_hooks for module in encoder.encode.model.modules())


def test_tensors_are_taken_as_well_as_arrays(tiny: Encoder) -> None:
    window = noise(1, 24_000)
    assert torch.equal(tiny(window), tiny(torch.from_numpy(window)))


def test_pre_norm_models_as_the_330m_equal_their_hidden_states_up_to_the_last(tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
        conv_bias=True,
    )
    model = HubertModel(config)
    torch.nn.init.normal_(model.encoder.layer_norm.weight, 1, 0.5)
    folder = publish(tmp_path / "large", model)
    encoder = load_encoder(str(folder), layers=(1, 3, 5, 6))
    with torch.inference_mode():
        ready = normalize(torch.from_numpy(noise(2, 48_000)))
        out = encoder.encode.model(ready, output_hidden_states=True)
    assert torch.allclose(encoder(noise(2, 48_000)), pooled(out.hidden_states, (1, 3, 5, 6)), atol=1e-5, rtol=0)
    with torch.inference_mode():
        closed = encoder.encode.model.encoder.layer_norm(out.hidden_states[6])
    assert torch.allclose(closed, out.last_hidden_state, atol=1e-5, rtol=0), "state 6 is before the closing LayerNorm"
    assert not torch.allclose(closed, out.hidden_states[6], atol=1e-2, rtol=0)


def test_twins_are_the_same_each_time_and_leave_the_global_generator_alone(tiny: Encoder) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    again = load_encoder("tiny")
    assert torch.equal(torch.rand(3), expected)
    assert again.identity() == tiny.identity()
    torch.manual_seed(99)
    assert load_encoder("tiny").digest == tiny.digest
    assert torch.equal(again(noise(1, 24_000)), tiny(noise(1, 24_000)))


def test_the_random_twin_has_the_size_of_mert_95m() -> None:
    encoder = load_encoder("random")
    assert encoder.dim == 3072
    assert sum(parameter.numel() for parameter in encoder.encode.model.parameters()) == 94_371_712
    assert len(encoder.encode.model.state_dict()) == 211
    assert encoder(noise(1, 24_000)).shape == (1, 3072)


def test_the_identity_is_what_stores_have_always_said(tiny: Encoder) -> None:
    assert tiny.identity() == {
        "name": "tiny",
        "revision": None,
        "weights_sha256": tiny.digest,
        "licence": "Apache-2.0 (untrained)",
        "layers": (3, 6, 9, 12),
        "pooling": "mean",
        "window_seconds": 10.0,
        "keep_tail": False,
        "sample_rate": 24_000,
        "dtype": "float32",
        "dim": 192,
    }
    assert len(tiny.digest) == 64
    assert tiny.identity(5.0, True) == {**tiny.identity(), "window_seconds": 5.0, "keep_tail": True}


@pytest.mark.parametrize(
    ("folder", "card", "licence"),
    [
        ("hubert", "---\nlanguage: en\nlicense: 'apache-2.0'\n---\nlicense: of the text", "apache-2.0"),
        ("hubert", "# No head\n\nlicense: none", "unknown (local directory)"),
        ("hubert", None, "unknown (local directory)"),
        ("my-MERT", "---\nlicense: mit\n---", "CC-BY-NC-4.0"),
    ],
)
def test_a_directory_has_the_licence_of_its_card_and_a_mert_its_own(
    tmp_path_factory: pytest.TempPathFactory, tiny: Encoder, folder: str, card: str | None, licence: str
) -> None:
    place = publish(tmp_path_factory.mktemp("card", numbered=True) / folder, tiny.encode.model)
    if card is not None:
        (place / "README.md").write_text(card)
    assert load_encoder(place).licence == licence


def test_a_run_knows_a_twin_by_its_name_and_others_by_their_weights(tmp_path: Path, tiny: Encoder) -> None:
    facts = {"layers": (3, 6, 9, 12), "pooling": "mean", "sample_rate": 24_000, "dtype": "float32", "dim": 192}
    assert tiny.fingerprint() == {"encoder": "tiny", **facts}
    copy = load_encoder(publish(tmp_path / "copy", tiny.encode.model))
    assert copy.fingerprint() == {"encoder": f"weights {tiny.digest[:16]}", **facts}


def test_the_published_layout_gives_the_features_and_digest_of_its_weights(tmp_path: Path, tiny: Encoder) -> None:
    folder = publish(tmp_path / "MERT", tiny.encode.model)
    encoder = load_encoder(str(folder))
    assert encoder.digest == tiny.digest
    assert torch.equal(encoder(noise(2, 48_000)), tiny(noise(2, 48_000)))
    assert encoder.licence == "CC-BY-NC-4.0"


@pytest.mark.parametrize("prefix", ["", "hubert."])
def test_safetensors_give_the_same_as_the_pickled_weights(tmp_path: Path, tiny: Encoder, prefix: str) -> None:
    folder = publish(tmp_path / "MERT", tiny.encode.model)
    weights = {prefix + name: tensor for name, tensor in published_names(tiny.encode.model).items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    encoder = load_encoder(str(folder))
    assert encoder.digest == tiny.digest
    assert torch.equal(encoder(noise(2, 48_000)), tiny(noise(2, 48_000)))


def test_other_weights_have_another_digest(tmp_path: Path, tiny: Encoder) -> None:
    model = HubertModel(tiny.encode.model.config)
    model.load_state_dict(tiny.encode.model.state_dict())
    with torch.no_grad():
        model.encoder.layers[11].final_layer_norm.bias[0] += 1e-3
    other = load_encoder(str(publish(tmp_path / "other", model)))
    assert other.digest != tiny.digest


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"feature_extractor_cqt": True}, "feature_extractor_cqt"),
        ({"deepnorm": True}, "deepnorm"),
        ({"hidden_size": 64}, "do not fit"),
        ({"num_hidden_layers": 13}, "do not fit"),
        ({"num_attention_heads": 5}, "does not describe a model"),
        ({"hidden_size": "large"}, "does not describe a model"),
    ],
)
def test_a_config_hubert_cannot_follow_is_refused_by_name(
    tmp_path: Path, tiny: Encoder, changes: dict[str, Any], named: str
) -> None:
    refused(named, str(publish(tmp_path / "bad", tiny.encode.model, **changes)))


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_no_config_is_refused(tmp_path: Path, tiny: Encoder, text: str) -> None:
    folder = publish(tmp_path / "bad", tiny.encode.model)
    (folder / "config.json").write_text(text)
    refused("config.json does not describe a model", str(folder))


def test_a_directory_without_config_or_without_weights_is_refused(tmp_path: Path, tiny: Encoder) -> None:
    folder = publish(tmp_path / "half", tiny.encode.model)
    (folder / "pytorch_model.bin").unlink()
    refused("neither model.safetensors nor pytorch_model.bin", str(folder))
    (folder / "config.json").unlink()
    refused("no config.json", str(folder))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nonsense", "no such directory"),
        ("/no/such/place", "no such directory"),
        ("./nowhere", "no such directory"),
        ("a/b/c", "no such directory"),
        ("someone/some-model", "no pinned revision"),
    ],
)
def test_an_encoder_that_is_not_there_is_refused(name: str, named: str) -> None:
    refused(named, name)


@pytest.mark.parametrize(
    ("layers", "named"),
    [((), "layers 1 to 12"), ((3, 13), "layers 1 to 12"), ((0,), "greater than 0"), ((-1, 3), "greater than 0")],
)
def test_layers_the_encoder_lacks_are_refused(layers: tuple[int, ...], named: str) -> None:
    refused(named, "tiny", layers=layers)


class Malicious:
    """Unpickled without care, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("container", ["pickle", "torch", "legacy"])
def test_a_malicious_checkpoint_executes_nothing_and_is_refused(tmp_path: Path, tiny: Encoder, container: str) -> None:
    folder, planted = publish(tmp_path / "evil", tiny.encode.model), tmp_path / "planted"
    weights = {**published_names(tiny.encode.model), "extra": Malicious(planted)}
    if container == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(planted)))
    else:
        torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=container == "torch")
    refused("holds no plain weights", str(folder))
    assert not planted.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False) if container != "pickle" else pickle.loads(
        (folder / "pytorch_model.bin").read_bytes()
    )
    assert planted.exists(), "the planted checkpoint must be one that works on a careless reader"


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_damaged_weights_are_refused(tmp_path: Path, tiny: Encoder, file: str, content: bytes) -> None:
    folder = publish(tmp_path / "damaged", tiny.encode.model)
    (folder / file).write_bytes(content)
    refused("holds no plain weights", str(folder))


def test_weights_cut_short_or_of_another_kind_are_refused(tmp_path: Path, tiny: Encoder) -> None:
    folder = publish(tmp_path / "damaged", tiny.encode.model)
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    refused("holds no plain weights", str(folder))
    torch.save([torch.zeros(3)], folder / "pytorch_model.bin")
    refused("holds no plain weights", str(folder))
    torch.save({**published_names(tiny.encode.model), "unknown": torch.zeros(1)}, folder / "pytorch_model.bin")
    refused("do not fit", str(folder))


@pytest.mark.parametrize("batch_windows", [1, 3, 64])
def test_tracks_get_their_own_features_back_in_order(tiny: Encoder, batch_windows: int) -> None:
    lengths = [[4_000] * 3, [], [4_000, 2_000], [1_000], [4_000] * 2 + [2_000]]
    numbers = iter(range(100))
    tracks = [[Window(noise(1, length, seed=next(numbers))[0]) for length in track] for track in lengths]
    features = encode_tracks(tiny, tracks, batch_windows)
    assert [len(track) for track in features] == [3, 0, 2, 1, 3]
    assert all(track.shape[1] == 192 and track.dtype == np.float32 for track in features)
    for windows, vectors in zip(tracks, features, strict=True):
        for window, vector in zip(windows, vectors, strict=True):
            np.testing.assert_allclose(vector, tiny(window.samples[None])[0].numpy(), atol=1e-5)


def test_no_forward_pass_is_larger_than_asked(tiny: Encoder) -> None:
    sizes: list[int] = []

    class Counting:
        dim, device = tiny.dim, tiny.device

        def launch(self, samples: Tensor, scales: Tensor) -> Tensor:
            sizes.append(len(samples))
            return tiny.launch(samples, scales)

    encode_tracks(Counting(), [[*map(Window, noise(count, 4_000))] for count in (5, 2)], 3)  # type: ignore[arg-type]
    assert sizes == [3, 3, 1]


def test_packed_samples_times_their_scale_have_the_features_of_their_floats(tiny: Encoder) -> None:
    packed = np.random.default_rng(0).integers(-30_000, 30_000, (3, 4_000), np.int16)
    scales = np.array([1e-5, 0.01, 0.5], np.float32)
    (features,) = encode_tracks(tiny, [[*map(Window, packed, scales)]], 2)
    np.testing.assert_array_equal(features, tiny(packed * scales[:, None]).numpy())


def refused(named: str, name: str, **options: Any) -> None:
    """The encoder is refused in one sentence without line breaks that says what is wrong."""
    with pytest.raises(InputError, match=named) as caught:
        load_encoder(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")


def test_a_gpu_that_torch_cannot_see_is_an_error_and_no_silent_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"torch sees no GPU on .*--gpus 0"):
        load_encoder("tiny", device="cuda")
