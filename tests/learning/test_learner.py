"""The learner: several workers are one, a seed is a run, a checkpoint leaves no trace, and it learns."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from mer_ray.errors import InputError
from mer_ray.learning.learner import ORDER, Learner, ValidationSet, alignment_regularization
from mer_ray.learning.losses import DOOR, Batch
from mer_ray.learning.losses.triplet import triplet_loss
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.sampling import TrainingSet, epoch_batches, stream_seed
from mer_ray.learning.scoring import LabelScale, macro_f1
from mer_ray.learning.settings import TrainSettings
from mer_ray.settings import part_of

SHAPE = ProjectorShape(input_dim=12, output_dim=8, hidden_dim=32, layers=2, heads=4, dropout=0.0)


def recipe_of(base: TrainSettings, **changes: Any) -> TrainSettings:
    """A recipe with some settings changed, those of its loss among them."""
    loss = changes.pop("loss", base.loss)
    part = part_of(DOOR, loss)
    own = {name: changes.pop(name) for name in part.model_fields.keys() & changes.keys()}
    before = base.part("loss").model_dump() if loss == base.loss else {}
    recipe = base.model_copy(update={**changes, "loss": loss})
    recipe._parts = {"loss": part(**{**before, **own})}
    return recipe


OPTIONS = recipe_of(
    TrainSettings(train=["/t"], features=["/f"], model="/m"),
    epochs=1,
    batch_size=7,
    lr=1e-3,
    min_lr=1e-5,
    plateau_factor=0.5,
    plateau_patience=0,
    plateau_cooldown=1,
    margin=0.7,
    lambda_=0.8,
    # Adam scales an all but zero gradient up to a full step, round-off and all. With one seed in four some weight
    # meets that, and workers differ by 1e-5; else by 2e-7.
    seed=4,
)
LABELS = 6
# Two datasets of 67 and 25 windows in batches of 7: ten steps, shares of 4 and 3 rows, at the end 2 and 2.
# One dataset of 19 in batches of 3: at the end of an epoch one row, so that a worker has none.
TOGETHER: dict[str, tuple[list[int], TrainSettings]] = {
    **{form: ([67, 25], recipe_of(OPTIONS, regularizer=form)) for form in ("negative", "positive", "reference")},
    "softmax over the labels": ([67, 25], recipe_of(OPTIONS, loss="contrastive")),
    "drawn labels": ([67, 25], recipe_of(OPTIONS, positive="sample", negatives=3)),
    "a worker without rows": ([19], recipe_of(OPTIONS, batch_size=3, epochs=2)),
}


def label_embeddings() -> Tensor:
    drawn = torch.randn(LABELS, SHAPE.output_dim, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(drawn, dim=1)


def songs(count: int, seed: int, labels_each: int = 2, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Features that show each song's labels, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(count, LABELS, dtype=torch.bool)
    truth.scatter_(1, torch.rand(count, LABELS, generator=generator).topk(labels_each, dim=1).indices, True)
    shown = torch.randn(LABELS, SHAPE.input_dim, generator=torch.Generator().manual_seed(2))
    features = truth.float() @ shown + noise * torch.randn(count, SHAPE.input_dim, generator=generator)
    return features.half(), truth


def training_set(count: int, seed: int, **kwargs: Any) -> TrainingSet:
    features, truth = songs(count, seed, **kwargs)
    clusters = torch.tensor([0, 0, 1, 2, 2, 3])
    return TrainingSet(f"set{seed}", features, torch.arange(count), truth, label_embeddings(), clusters)


def learner(options: TrainSettings, sizes: list[int], dropout: float = 0.0, weights: int = 0, **kwargs: Any) -> Learner:
    torch.manual_seed(weights)
    projector = Projector(replace(SHAPE, dropout=dropout))
    features, truth = songs(40, 99, **kwargs)
    windows = replace(training_set(40, 99, **kwargs), features_ND=features, truth_SL=truth)
    validation = ValidationSet(windows, truth.numpy(), label_embeddings().numpy(), int(truth[0].sum()))
    sets = [training_set(size, at, **kwargs) for at, size in enumerate(sizes)]
    return Learner(projector, sets, [validation], options)


def weights_of(one: Learner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in one.projector.state_dict().items()}


def outcome(sizes: list[int], options: TrainSettings) -> dict[str, Any]:
    """Losses and gradient of a first batch, then the losses and weights of a training of its own."""
    first = learner(options, sizes)
    indices = [np.arange(options.batch_size) for _ in sizes]
    align, regularization = first.batch_loss(indices, torch.Generator().manual_seed(8))
    (align + options.lambda_ * regularization).backward()
    parameters = list(first.projector.parameters())
    first.workers.finish_gradients()
    gradient = torch.cat(
        [torch.zeros_like(one).flatten() if one.grad is None else one.grad.flatten() for one in parameters]
    )
    trained = learner(options, sizes)
    for _ in range(options.epochs):
        trained.run_epoch()
    return {
        "loss": [align.item(), regularization.item()],
        "gradient": gradient,
        "history": trained.history,
        "start": weights_of(first),
        "weights": weights_of(trained),
    }


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({name: outcome(*scenario) for name, scenario in TOGETHER.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.spawn(_worker, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_near(left: Tensor, right: Tensor) -> None:
    assert (left - right).norm() <= 1e-5 * right.norm()


@pytest.mark.parametrize("scenario", TOGETHER)
def test_two_workers_have_the_loss_gradient_and_weights_of_one(
    scenario: str, two_workers: list[dict[str, Any]]
) -> None:
    alone = outcome(*TOGETHER[scenario])
    for worker in two_workers:
        together = worker[scenario]
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert_near(together["gradient"], alone["gradient"])
        for epoch, expected in zip(together["history"], alone["history"], strict=True):
            assert epoch == pytest.approx(expected, rel=1e-5)
        for name, weight in together["weights"].items():
            assert_near(weight, alone["weights"][name])
    moved = alone["weights"]["output.weight"] - alone["start"]["output.weight"]
    assert moved.norm() > 1e-2 * alone["start"]["output.weight"].norm(), "ten steps that move nothing prove nothing"


def test_two_workers_stay_bit_for_bit_alike(two_workers: list[dict[str, Any]]) -> None:
    first, second = two_workers
    for scenario in TOGETHER:
        assert first[scenario]["history"] == second[scenario]["history"]
        for name, weight in first[scenario]["weights"].items():
            assert torch.equal(weight, second[scenario]["weights"][name])


def test_the_loss_sums_the_sets_triplets_and_regularizes_over_their_joint_batch() -> None:
    # One label a song and all five wrong ones as negatives: nothing is left to chance.
    options = recipe_of(OPTIONS, negatives=LABELS - 1)
    both, batch = learner(options, [30, 20], labels_each=1), [np.arange(4), np.arange(5)]
    align, regularization = both.batch_loss(batch, torch.Generator())
    triplets, projected, clusters = [], [], []
    for one, picked in zip(
        [training_set(30, 0, labels_each=1), training_set(20, 1, labels_each=1)], batch, strict=True
    ):
        truth, rows = one.truth_SL[picked], both.projector(one.features_ND[picked])
        wrong = (~truth).float() @ one.targets_LE / (LABELS - 1)
        everyone = torch.ones(len(rows), dtype=torch.bool)
        triplets.append(triplet_loss(rows, truth.float() @ one.targets_LE, wrong, everyone, 0.7).item())
        projected.append(rows)
        clusters.append(one.clusters_L[truth.int().argmax(1)])
    expected = alignment_regularization(torch.cat(projected), torch.cat(clusters))
    assert align.item() == pytest.approx(sum(triplets), rel=1e-5)
    assert regularization.item() == pytest.approx(expected.item(), rel=1e-5)


def run(options: TrainSettings, epochs: int, dropout: float = 0.2, **kwargs: Any) -> Learner:
    one = learner(options, [60, 25], dropout=dropout, **kwargs)
    for _ in range(epochs):
        one.run_epoch()
    return one


def assert_same(left: Learner, right: Learner) -> None:
    assert left.history == right.history
    assert left.best == right.best
    pairs = [(left.projector, right.projector), (left.best_projector(), right.best_projector())]
    for one, other in pairs:
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_one_seed_is_one_run_bit_for_bit_and_another_seed_another(dropout: float) -> None:
    options = recipe_of(OPTIONS, positive="sample")
    one = run(options, 2, dropout)
    assert_same(one, run(options, 2, dropout))
    other = run(recipe_of(options, seed=5), 2, dropout)
    assert not torch.equal(weights_of(one)["output.weight"], weights_of(other)["output.weight"])


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_run_restored_from_a_checkpoint_ends_bit_for_bit_as_if_undisturbed(cut: int, tmp_path: Path) -> None:
    undisturbed = run(OPTIONS, 6, noise=8.0)
    rates = [epoch["lr"] for epoch in undisturbed.history]
    assert len(set(rates)) > 1, "the plateau schedule is to act"
    before = run(OPTIONS, cut, noise=8.0)
    before.save(tmp_path / "state.safetensors")
    after = learner(OPTIONS, [60, 25], dropout=0.2, weights=77, noise=8.0)
    torch.rand(9)
    after.restore(tmp_path / "state.safetensors")
    assert after.next_epoch == cut
    assert_same(after, before)
    while after.next_epoch < 6:
        after.run_epoch()
    assert_same(after, undisturbed)


def test_the_best_projector_is_that_of_the_best_epoch_not_of_the_last() -> None:
    one = learner(recipe_of(OPTIONS, lr=3e-2), [60, 25], noise=8.0)
    weights = []
    for _ in range(8):
        one.run_epoch()
        weights.append(weights_of(one))
    scores = [epoch["macro_f1"] for epoch in one.history]
    best = scores.index(max(scores))
    assert best < 7, "the last epoch is the best: the test cannot tell them apart"
    assert (one.best["epoch"], one.best["macro_f1"]) == (best, scores[best])
    assert torch.equal(one.best_projector().output.weight, weights[best]["output.weight"])
    assert not one.best_projector().training


def test_the_learning_rate_falls_when_validation_no_longer_rises_and_not_below_its_floor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = learner(recipe_of(OPTIONS, min_lr=3e-4), [20])
    scores = iter([0.1, 0.2, 0.3, 0.2, 0.3, 0.3, 0.3, 0.3])
    monkeypatch.setattr(one, "validate", lambda: (next(scores), 0.0))
    rates = [one.run_epoch()["lr"] for _ in range(8)]
    # Halved after the fourth epoch, the first that is no better; the fifth is cooldown; after the sixth the floor.
    assert rates == pytest.approx([1e-3] * 4 + [5e-4] * 2 + [3e-4] * 2)


def test_dropout_acts_in_every_step_of_every_epoch_and_not_in_validation() -> None:
    one = learner(OPTIONS, [20], dropout=0.5)
    modes: list[bool] = []
    one.projector.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for _ in range(2):
        one.run_epoch()
    assert modes == [True, True, True, False] * 2


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_what_can_be_learned_is_learned_far_above_chance(lambda_: float) -> None:
    options = recipe_of(OPTIONS, batch_size=32, lr=2e-3, lambda_=lambda_, plateau_patience=10, margin=1.0)
    one = learner(options, [300, 100], dropout=0.1, labels_each=1)
    history = [one.run_epoch() for _ in range(12)]
    assert history[-1]["align"] < 0.7 * history[0]["align"]
    assert history[-1]["macro_f1"] > 0.8, "chance is 1 / 6"
    features, truth = songs(200, 500, labels_each=1)
    unseen = project(one.best_projector(), features.numpy()) @ label_embeddings().numpy().T
    assert macro_f1(unseen, truth.numpy(), 1) > 0.8


def test_the_regularizer_spreads_the_clusters_it_is_given() -> None:
    def mean_cosine_across(lambda_: float) -> float:
        options = recipe_of(OPTIONS, batch_size=32, lr=2e-3, lambda_=lambda_, plateau_patience=10)
        one = learner(options, [200], labels_each=1)
        for _ in range(6):
            one.run_epoch()
        features, truth = songs(100, 500, labels_each=1)
        unit = project(one.projector.eval(), features.numpy())
        clusters = np.array([0, 0, 1, 2, 2, 3])[truth.numpy().argmax(1)]
        return float((unit @ unit.T)[clusters[:, None] != clusters[None, :]].mean())

    assert mean_cosine_across(2.5) < mean_cosine_across(0.0) - 0.05


class _Given(Learner):
    """A learner whose validation figures are given, (macro F1, loss) an epoch."""

    figures: Iterator[tuple[float, float]]

    def validate(self) -> tuple[float, float]:
        return next(self.figures)


def given(recipe: TrainSettings, *figures: tuple[float, float]) -> tuple[_Given, list[dict[str, Tensor]]]:
    """That learner after its training, and its weights after each epoch."""
    torch.manual_seed(0)
    one = _Given(Projector(SHAPE), [training_set(20, 0)], [], recipe)
    one.figures, weights = iter(figures), []
    while not one.finished:
        one.run_epoch()
        weights.append(weights_of(one))
    return one, weights


FIGURES = ((0.2, 0.9), (0.5, 0.7), (0.4, 0.5), (0.3, 0.6), (0.1, 0.8), (0.6, 0.9))


@pytest.mark.parametrize(("keep", "best"), [("macro_f1", 5), ("loss", 2)])
def test_the_epoch_kept_is_that_of_the_highest_f1_or_of_the_lowest_loss(keep: str, best: int) -> None:
    one, weights = given(recipe_of(OPTIONS, epochs=6, keep=keep), *FIGURES)
    assert one.best == {"epoch": best, "macro_f1": FIGURES[best][0], "validation_loss": FIGURES[best][1]}
    assert torch.equal(one.best_projector().output.weight, weights[best]["output.weight"])


@pytest.mark.parametrize(
    ("patience", "keep", "epochs"), [(0, "macro_f1", 6), (2, "macro_f1", 5), (2, "loss", 5), (3, "loss", 6)]
)
def test_a_training_stops_where_for_so_long_no_epoch_was_better_or_had_a_lower_loss(
    patience: int, keep: str, epochs: int
) -> None:
    one, _ = given(recipe_of(OPTIONS, epochs=6, stop_patience=patience, keep=keep), *FIGURES)
    assert len(one.history) == epochs, "the loss was lowest in the third epoch"


def two_validation_sets(**changes: Any) -> Learner:
    one = learner(recipe_of(OPTIONS, **changes), [20, 20])
    features, truth = songs(150, 5)
    windows = replace(training_set(150, 5), features_ND=features, truth_SL=truth)
    second = ValidationSet(windows, truth.numpy(), label_embeddings().numpy(), 2)
    one._validation = [*one._validation, second]
    return one


def test_validation_is_the_mean_over_all_datasets_or_the_first_ones() -> None:
    both = two_validation_sets(select_over="all")
    each = []
    for one in both._validation:
        alone = two_validation_sets(select_over="first")
        alone._validation = [one]
        each.append(alone.validate()[0])
    assert each[0] != each[1]
    assert both.validate()[0] == pytest.approx(np.mean(each))
    assert two_validation_sets(select_over="first").validate()[0] == each[0]


def test_songs_are_selected_on_by_the_score_that_their_tags_have() -> None:
    # 150 songs of two windows each are their own yardstick, as where they are tagged.
    one = two_validation_sets(select_on="songs", ranking="standardized")
    features, truth = songs(150, 5)
    twice = (features.repeat_interleave(2, 0).float() + 0.1 * torch.randn(300, SHAPE.input_dim)).half()
    windows = replace(training_set(150, 5), features_ND=twice, songs_N=torch.arange(150).repeat_interleave(2))
    one._validation = [ValidationSet(replace(windows, truth_SL=truth), truth.numpy(), label_embeddings().numpy(), 2)]
    means = project(one.projector.eval(), twice.numpy()).reshape(150, 2, -1).mean(1)
    trained = np.concatenate([project(one.projector, each.features_ND.numpy()) for each in one._sets])
    scale = LabelScale(label_embeddings().numpy(), means, "standardized", None, trained)
    wanted = macro_f1(scale.scores(means), truth.numpy(), 2, scale.floor)
    by_windows = two_validation_sets(select_on="windows")
    by_windows._validation = one._validation
    assert one.validate()[0] == pytest.approx(wanted)
    assert by_windows.validate()[0] != pytest.approx(wanted)


def test_a_loss_that_is_no_number_ends_before_any_weight_is_moved_and_names_step_and_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = learner(recipe_of(OPTIONS, batch_size=4), [20])
    features = one._sets[0].features_ND
    features[7, 3] = 6e4
    one._sets = [replace(one._sets[0], track_ids=[f"song/{at}" for at in range(20)])]
    order = np.concatenate([step[0] for step in epoch_batches([20], 4, stream_seed(OPTIONS.seed, ORDER), 0)])
    step = int(np.flatnonzero(order == 7)[0]) // 4
    plain, moved = one._alignment, []

    def overflowing(batch: Batch) -> Tensor:
        moved.append(weights_of(one))
        return plain(batch) * (math.inf if 7 in batch.songs_B else 1)

    monkeypatch.setattr(one, "_alignment", overflowing)
    where = f"is inf in step {step + 1} of epoch 1; the windows with the largest features there: song/7 window 1 "
    with pytest.raises(InputError, match=where + r"\(6e\+04\)"):
        one.run_epoch()
    assert all(torch.equal(value, moved[-1][name]) for name, value in weights_of(one).items())


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_a_long_gradient_is_scaled_down_to_the_norm_that_is_asked_for(clip: float) -> None:
    one = learner(recipe_of(OPTIONS, clip_norm=clip), [20])
    one.step([np.arange(7)], torch.Generator().manual_seed(0))
    gradients = [parameter.grad.norm() for parameter in one.projector.parameters() if parameter.grad is not None]
    norm = torch.stack(gradients).norm().item()
    assert norm == pytest.approx(clip, rel=1e-3) if clip else norm > 1e-2


def test_without_cycling_an_epoch_goes_on_with_the_larger_dataset_alone() -> None:
    one = learner(recipe_of(OPTIONS, cycle=False), [30, 10])
    seen: list[int] = []
    one.projector.register_forward_hook(
        lambda module, given, _: seen.append(len(given[0])) if module.training else None
    )
    one.run_epoch()
    assert seen == [7, 7, 7, 3, 7, 7, 2]
