"""The projector: its shapes, each window on its own, and the scale of features that travels with it."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mer_ray.errors import InputError
from mer_ray.learning.projector import Projector, ProjectorShape, project

SHAPE = ProjectorShape(input_dim=10, output_dim=6, hidden_dim=32, layers=2, heads=4, dropout=0.3)


def make(seed: int = 0, shape: ProjectorShape = SHAPE) -> Projector:
    torch.manual_seed(seed)
    return Projector(shape).eval()


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, SHAPE.input_dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [10, 50, 100, 3072])
@pytest.mark.parametrize("count", [1, 3])
def test_windows_of_any_width_become_vectors_of_the_label_space(width: int, count: int) -> None:
    projector = make(shape=ProjectorShape(width, 6, hidden_dim=32, layers=1, heads=4))
    assert projector(torch.randn(count, width)).shape == (count, 6)
    assert projector(torch.randn(count, width).half()).dtype == torch.float32


def test_the_default_is_the_papers_projector() -> None:
    projector = Projector(ProjectorShape(3072))
    layers = projector.transformer.layers
    assert len(layers) == 2
    assert {layer.self_attn.num_heads for layer in layers} == {8}
    assert {layer.linear1.out_features for layer in layers} == {4 * 768}
    assert {layer.dropout.p for layer in layers} == {0.1}
    assert not any(layer.norm_first for layer in layers)
    assert projector.output.weight.shape == (384, 768)


def test_without_layers_it_is_a_linear_map_of_the_rank_of_its_width() -> None:
    projector = make(shape=ProjectorShape(10, 6, hidden_dim=2, layers=0))
    projector.set_feature_scale(torch.full((10,), 3.0), torch.full((10,), 2.0))
    plain = projector(rows(8)) - projector(torch.zeros(1, 10))
    assert torch.allclose(projector(rows(8) * 4) - projector(torch.zeros(1, 10)), plain * 4, atol=1e-5)
    assert torch.linalg.matrix_rank(plain, atol=1e-5) == 2
    assert set(projector.state_dict()) == {
        *("feature_mean", "feature_std"),
        *(f"{map_}.{name}" for map_ in ("input", "output") for name in ("weight", "bias")),
    }


def test_a_feature_far_beyond_the_trained_ones_counts_as_one_at_the_clip() -> None:
    projector = make(shape=ProjectorShape(10, 6, hidden_dim=2, layers=0, clip=5.0))
    far, at = torch.zeros(2, 10), torch.zeros(2, 10)
    far[0, 3], far[1, 3], at[0, 3], at[1, 3] = 1e4, -6.0, 5.0, -5.0
    assert torch.equal(projector(far), projector(at))
    assert not torch.allclose(make(shape=ProjectorShape(10, 6, hidden_dim=2, layers=0))(far), projector(at))


def test_a_window_is_projected_alike_whoever_stands_beside_it() -> None:
    projector = make()
    one, beside, others = rows(1), rows(7, seed=1), rows(7, seed=2) * 100
    alone = projector(one)
    for neighbours in (beside, others):
        assert torch.allclose(projector(torch.cat([one, neighbours]))[:1], alone, atol=1e-5)
        assert torch.allclose(projector(torch.cat([neighbours, one]))[-1:], alone, atol=1e-5)
    assert not torch.allclose(projector(rows(1, seed=3)), alone, atol=1e-2)


def test_windows_do_not_mix_in_training_either() -> None:
    projector = make(shape=ProjectorShape(10, 6, hidden_dim=32, heads=4, dropout=0.0)).train()
    windows = rows(5).requires_grad_()
    projector(windows)[2].sum().backward()
    assert windows.grad is not None
    moved = windows.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, False, True, False, False]


def test_the_query_and_key_of_attention_over_one_window_have_no_gradient_at_all() -> None:
    projector = make().train()
    projector(rows(9)).square().sum().backward()
    for layer in projector.transformer.layers:
        query, key, value = layer.self_attn.in_proj_weight.grad.chunk(3)
        assert query.abs().max() == 0
        assert key.abs().max() == 0
        assert value.abs().max() > 0


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    projector, windows = make(), rows(4)
    assert torch.equal(projector(windows), projector(windows))
    projector.train()
    assert not torch.equal(projector(windows), projector(windows))


def test_features_are_standardised_whatever_their_unit() -> None:
    plain, scaled, windows = make(), make(), rows(50)
    factor = torch.logspace(-3, 3, SHAPE.input_dim)
    plain.set_feature_scale(windows.mean(0), windows.std(0))
    moved = windows * factor + 5 * factor
    scaled.set_feature_scale(moved.mean(0), moved.std(0))
    assert torch.allclose(scaled(moved), plain(windows), atol=1e-3)
    assert not torch.allclose(scaled(windows), plain(windows), atol=1e-1)


@pytest.mark.parametrize("deviation", [0.0, 1e-9])
def test_a_constant_dimension_is_centred_but_not_blown_up(deviation: float) -> None:
    windows = rows(20)
    windows[:, 3] = 7.0
    mean, std = windows.mean(0), windows.std(0)
    std[3] = deviation
    projector = make()
    projector.set_feature_scale(mean, std)
    assert projector.feature_std[3] == 1
    assert projector(windows).isfinite().all()
    nearly = windows.clone()
    nearly[:, 3] += 1e-4
    assert torch.allclose(projector(nearly), projector(windows), atol=1e-3)


def test_the_feature_scale_travels_with_the_weights(tmp_path: Path) -> None:
    source, windows = make(), rows(8) * 30 + 4
    source.set_feature_scale(windows.mean(0), windows.std(0))
    save_file(source.state_dict(), tmp_path / "projector.safetensors")
    target = make(seed=9)
    assert not torch.allclose(target(windows), source(windows), atol=1e-2)
    target.load_state_dict(load_file(tmp_path / "projector.safetensors"))
    assert torch.equal(target.feature_mean, windows.mean(0))
    assert torch.equal(target(windows), source(windows))


def test_the_feature_scale_is_not_trained() -> None:
    assert {"feature_mean", "feature_std"}.isdisjoint(name for name, _ in make().named_parameters())


def test_its_shape_as_plain_values_makes_the_same_projector_again() -> None:
    again = Projector(ProjectorShape(**asdict(SHAPE)))
    again.load_state_dict(make().state_dict())
    assert again.shape == SHAPE


@pytest.mark.parametrize("count", [0, 1, 4096, 5000])
def test_projecting_gives_a_unit_vector_a_window_in_order_however_many(count: int) -> None:
    projector, windows = make(), rows(count).half()
    unit = project(projector, windows.numpy())
    assert unit.shape == (count, SHAPE.output_dim)
    assert unit.dtype == np.float32
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    for at in {0, count // 2, count - 1} if count else set():
        raw = projector(windows[at : at + 1])[0].detach().numpy()
        assert np.allclose(unit[at], raw / np.linalg.norm(raw), atol=1e-5)


def test_no_two_layers_start_with_equal_weights() -> None:
    first, second = (layer.state_dict() for layer in make().transformer.layers)
    alike = {name for name in first if torch.equal(first[name], second[name])}
    constant = {name for name, value in first.items() if value.unique().numel() == 1}  # norms and attention's biases
    assert alike == constant


def test_the_activation_is_that_of_the_shape() -> None:
    gelu, relu = (make(shape=replace(SHAPE, activation=name)) for name in ("gelu", "relu"))
    assert not torch.allclose(gelu(rows(4)), relu(rows(4)), atol=1e-3)
    assert relu.transformer.layers[1].activation is torch.nn.functional.relu


def test_a_width_that_the_heads_cannot_share_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="100 wide with 8 heads; give --width a multiple of 8, or other --heads"):
        ProjectorShape(10, hidden_dim=100)
