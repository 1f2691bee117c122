"""The losses: against plain loops and hand arithmetic, their gradients, their draws, and their edges."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from mer_ray.learning.learner import alignment_regularization
from mer_ray.learning.losses import Batch
from mer_ray.learning.losses.contrastive import contrastive_loss
from mer_ray.learning.losses.soft_triplet import soft_triplet_loss
from mer_ray.learning.losses.triplet import triplet_loss
from mer_ray.learning.sampling import TrainingSet, draw_label, mean_targets, negative_targets
from mer_ray.learning.settings import Regularizer

REGULARIZERS: tuple[Regularizer, ...] = get_args(Regularizer)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loop_cosine(left: list[float], right: list[float]) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / (math.sqrt(sum(a * a for a in left)) * math.sqrt(sum(b * b for b in right)))


def loop_triplet(x: Tensor, positive: Tensor, negative: Tensor, usable: Tensor, margin: float) -> float:
    losses = []
    for row in range(len(x)):
        if usable[row]:
            wrong = loop_cosine(x[row].tolist(), negative[row].tolist())
            right = loop_cosine(x[row].tolist(), positive[row].tolist())
            losses.append(max(0.0, wrong - right + margin))
    return sum(losses) / len(losses)


def loop_regularization(x: Tensor, clusters: list[int], form: Regularizer) -> float:
    rows = x.tolist()
    values, anchors = [], []
    for i in range(len(rows)):
        across = []
        for j in range(len(rows)):
            if i == j:
                continue
            similarity = loop_cosine(rows[i], rows[j])
            if clusters[i] == clusters[j] and form == "positive":
                values.append(1 - similarity)
            if clusters[i] != clusters[j]:
                across.append(similarity)
        if form == "negative":
            values += across
        if form == "reference" and across:
            anchors.append(max(0.0, sum(across) / len(across) + 1))
    values = anchors if form == "reference" else values
    return sum(values) / len(values)


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_the_triplet_is_that_of_a_plain_loop_over_segments(margin: float) -> None:
    x, positive, negative = (normal(33, 7, seed=seed) for seed in range(3))
    usable = torch.arange(33) % 5 != 0
    expected = loop_triplet(x, positive, negative, usable, margin)
    assert triplet_loss(x, positive, negative, usable, margin).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", REGULARIZERS)
def test_a_regularizer_is_that_of_a_plain_double_loop_over_pairs(form: Regularizer) -> None:
    x, clusters = normal(29, 7) + 0.3, torch.randint(0, 4, (29,), generator=seeded())
    expected = loop_regularization(x, clusters.tolist(), form)
    assert alignment_regularization(x, clusters, form).item() == pytest.approx(expected, rel=1e-12)


def test_the_triplet_by_hand() -> None:
    # x1 = (3, 4), unit (.6, .8): positive (1, 0) has cosine .6, negative (0, 1) has .8;
    # x2 = (0, 2), unit (0, 1): positive (0, 5) has cosine 1, negative (1, 0) has 0; x3 does not count.
    # margin 1:   (max(0, .8 - .6 + 1)  + max(0, 0 - 1 + 1))  / 2 = (1.2 + 0) / 2 = .6
    # margin 1/2: (max(0, .8 - .6 + .5) + max(0, 0 - 1 + .5)) / 2 = (.7 + 0)  / 2 = .35
    # The paper's printed sign would give (.8 + 2) / 2 = 1.4 at margin 1.
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
    positive = torch.tensor([[1.0, 0.0], [0.0, 5.0], [1.0, 0.0]])
    negative = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    usable = torch.tensor([True, True, False])
    assert triplet_loss(x, positive, negative, usable).item() == pytest.approx(0.6)
    assert triplet_loss(x, positive, negative, usable, 0.5).item() == pytest.approx(0.35)


@pytest.mark.parametrize(("form", "expected"), [("negative", -0.16), ("positive", 0.4), ("reference", 5 / 6)])
def test_the_regularizers_by_hand(form: Regularizer, expected: float) -> None:
    # a = (3, 4) and b = (2, 0) in cluster 0, c = (0, 1) in cluster 1, d = (-5, 0) in cluster 2.
    # Cosines: ab .6, ac .8, ad -.6, bc 0, bd -1, cd 0.
    # negative:  pairs across clusters: (.8 - .6 + 0 - 1 + 0) / 5 = -.8 / 5 = -.16
    # positive:  the one pair of one cluster, ab: 1 - .6 = .4
    # reference: a: (.8 - .6) / 2 + 1 = 1.1;  b: (0 - 1) / 2 + 1 = .5;
    #            c: (.8 + 0 + 0) / 3 + 1 = 19/15;  d: (-.6 - 1 + 0) / 3 + 1 = 7/15;
    #            (33/30 + 15/30 + 38/30 + 14/30) / 4 = (100/30) / 4 = 5/6
    x = torch.tensor([[3.0, 4.0], [2.0, 0.0], [0.0, 1.0], [-5.0, 0.0]])
    assert alignment_regularization(x, torch.tensor([0, 0, 1, 2]), form).item() == pytest.approx(expected)


def test_a_step_down_the_triplet_brings_a_segment_nearer_its_truth() -> None:
    x = normal(1, 7).requires_grad_()
    positive, negative = normal(1, 7, seed=1), normal(1, 7, seed=2)
    triplet_loss(x, positive, negative, torch.tensor([True])).backward()
    assert x.grad is not None
    before, after = x.detach(), x.detach() - 0.1 * x.grad
    towards = [loop_cosine(one[0].tolist(), positive[0].tolist()) for one in (before, after)]
    away = [loop_cosine(one[0].tolist(), negative[0].tolist()) for one in (before, after)]
    assert towards[1] > towards[0]
    assert away[1] < away[0]


def test_the_gradient_of_the_triplet_is_its_slope() -> None:
    x, positive, negative = (normal(6, 5, seed=seed).requires_grad_() for seed in range(3))
    usable = torch.tensor([True, True, False, True, True, True])

    def loss(x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_loss(x, positive, negative, usable, 0.2)

    hinges = [
        loop_cosine(x[at].tolist(), negative[at].tolist()) - loop_cosine(x[at].tolist(), positive[at].tolist()) + 0.2
        for at in range(6)
    ]
    assert min(map(abs, hinges)) > 1e-2, "a segment stands on the kink"
    assert min(hinges) < 0 < max(hinges), "both sides of the kink are to be checked"
    assert torch.autograd.gradcheck(loss, (x, positive, negative))


@pytest.mark.parametrize("form", REGULARIZERS)
def test_the_gradient_of_a_regularizer_is_its_slope(form: Regularizer) -> None:
    clusters = torch.tensor([0, 1, 0, 2, 1, 1])
    assert torch.autograd.gradcheck(
        lambda x: alignment_regularization(x, clusters, form), (normal(6, 5).requires_grad_(),)
    )


EDGES: dict[str, Callable[[Tensor], Tensor]] = {
    "triplet": lambda x: triplet_loss(x, torch.ones_like(x), -torch.ones_like(x), torch.ones(len(x), dtype=torch.bool)),
    "triplet towards zero": lambda x: triplet_loss(x, x * 0, x * 0, torch.ones(len(x), dtype=torch.bool)),
    **{
        f"{form}, {name}": lambda x, form=form, clusters=clusters: alignment_regularization(x, clusters(len(x)), form)
        for form in REGULARIZERS
        for name, clusters in {
            "one cluster": lambda n: torch.zeros(n, dtype=torch.int64),
            "all alone": torch.arange,
            "two clusters": lambda n: torch.arange(n) % 2,
        }.items()
    },
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_a_zero_vector_or_a_poor_batch_moves_nothing_and_gives_no_nan(edge: str, rows: int) -> None:
    x = normal(rows, 3).float()
    x[:1] = 0
    x.requires_grad_()
    loss = EDGES[edge](x)
    loss.backward()
    assert math.isfinite(loss.item())
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[:1] == 0).all()


@pytest.mark.parametrize(
    ("form", "clusters"), [("negative", [3, 3, 3]), ("reference", [3, 3, 3]), ("positive", [0, 1])]
)
def test_a_batch_without_a_pair_costs_nothing(form: Regularizer, clusters: list[int]) -> None:
    assert alignment_regularization(normal(len(clusters), 3), torch.tensor(clusters), form).item() == 0


def test_a_song_with_every_label_has_no_wrong_one_and_does_not_count() -> None:
    truth = torch.tensor([[True, True, True], [True, False, False]])
    targets = torch.eye(3)
    negative, usable = negative_targets(~truth, targets, count=2, generator=seeded())
    assert usable.tolist() == [False, True]
    assert negative.isfinite().all()
    x = torch.tensor([[1.0, 2.0, 3.0], [0.3, 0.2, 0.1]], requires_grad=True)
    loss = triplet_loss(x, mean_targets(truth, targets), negative, usable)
    alone = triplet_loss(x[1:], mean_targets(truth[1:], targets), negative[1:], usable[1:])
    assert loss.item() == pytest.approx(alone.item())
    loss.backward()
    assert x.grad is not None
    assert (x.grad[0] == 0).all()
    assert (x.grad[1] != 0).any()
    everything = triplet_loss(x[:1], mean_targets(truth[:1], targets), negative[:1], usable[:1])
    assert everything.item() == 0


@pytest.mark.parametrize("count", [1, 2, 3, 5, 99])
def test_negatives_are_distinct_wrong_labels_as_many_as_asked_for_or_there_are(count: int) -> None:
    truth = torch.rand(400, 6, generator=seeded()) < 0.5
    truth[:, 0] |= ~truth.any(1)
    # With one axis a label, the mean of n distinct labels is 1/n on n axes; one drawn twice would stand out.
    drawn, usable = negative_targets(~truth, torch.eye(6), count=count, generator=seeded(1))
    for row in range(400):
        wrong = int((~truth[row]).sum())
        expected = min(count, wrong)
        assert usable[row].item() == (wrong > 0)
        if wrong:
            assert not drawn[row][truth[row]].any()
            assert (drawn[row] > 0).sum() == expected
            assert drawn[row].max().item() == pytest.approx(1 / expected)


@pytest.mark.parametrize("count", [1, 2])
def test_each_wrong_label_is_drawn_as_often_as_any_other(count: int) -> None:
    truth = torch.tensor([[False, True, False, False, True]]).repeat(30_000, 1)
    drawn, _ = negative_targets(~truth, torch.eye(5), count=count, generator=seeded())
    share = (drawn > 0).float().mean(0)
    # Three wrong labels, each in count / 3 of the draws; the deviation of the share is below 0.003.
    assert torch.allclose(share, torch.tensor([1.0, 0, 1, 1, 0]) * count / 3, atol=0.012)


def test_the_positive_is_the_mean_of_all_true_labels() -> None:
    truth = torch.tensor([[True, False, True], [False, True, False]])
    targets = torch.tensor([[1.0, 2.0], [10.0, 20.0], [3.0, 6.0]])
    assert mean_targets(truth, targets).tolist() == [[2.0, 4.0], [10.0, 20.0]]


def test_a_sampled_positive_is_one_true_label_each_as_often_as_the_others() -> None:
    truth = torch.tensor([[True, False, True, True]]).repeat(30_000, 1)
    drawn = torch.eye(4)[draw_label(truth, seeded())]
    assert set(map(tuple, drawn.tolist())) == {(1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)}
    assert torch.allclose(drawn.mean(0), torch.tensor([1.0, 0, 1, 1]) / 3, atol=0.012)


def test_a_segments_cluster_is_that_of_one_of_its_labels_each_as_often_as_the_others() -> None:
    truth = torch.tensor([[True, False, True, False], [False, True, False, False]]).repeat(15_000, 1)
    drawn = torch.tensor([7, 8, 9, 7])[draw_label(truth, seeded())]
    assert set(drawn[::2].tolist()) == {7, 9}
    assert set(drawn[1::2].tolist()) == {8}
    assert (drawn[::2] == 7).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_draws_depend_on_the_generator_alone() -> None:
    truth = torch.rand(50, 6, generator=seeded()) < 0.5
    truth[:, 0] = True

    def draws(seed: int) -> list[Tensor]:
        generator = seeded(seed)
        torch.rand(1)
        return [
            torch.eye(6)[draw_label(truth, generator)],
            negative_targets(~truth, torch.eye(6), generator=generator)[0],
            draw_label(truth, generator),
        ]

    for one, again, other in zip(draws(1), draws(1), draws(2), strict=True):
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


def test_the_contrastive_loss_is_the_cross_entropy_of_the_true_labels_share() -> None:
    projected = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    truth = torch.tensor([[True, False, False], [True, True, False]])
    cosines = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    logs = torch.log_softmax(cosines / 0.5, dim=1)
    expected = -(logs[0, 0] + (logs[1, 0] + logs[1, 1]) / 2) / 2
    assert contrastive_loss(projected, truth, ~truth, targets, 0.5).item() == pytest.approx(expected.item(), rel=1e-6)
    assert contrastive_loss(projected[:0], truth[:0], ~truth[:0], targets).item() == 0


def test_the_contrastive_loss_draws_to_the_truth_and_a_sharper_temperature_weighs_the_nearest_wrong_label() -> None:
    targets = torch.eye(3)
    truth = torch.tensor([[True, False, False]])
    pulls = []
    for temperature in (1.0, 0.1):
        projected = torch.tensor([[0.5, 0.6, 0.1]], requires_grad=True)
        contrastive_loss(projected, truth, ~truth, targets, temperature).backward()
        assert projected.grad is not None
        assert projected.grad[0, 0] < 0 < projected.grad[0, 1]
        pulls.append((projected.grad[0, 1] / projected.grad[0, 2].abs()).item())
    assert pulls[1] > pulls[0]


def test_the_soft_triplet_by_hand() -> None:
    # x1 = (3, 4), unit (.6, .8): true (1, 0) has cosine .6; wrong (0, 1) has .8 and (-1, 0) has -.6.
    # x2 = (0, 2): true (1, 0) has 0 and (0, 1) has 1; wrong (-1, 0) has 0. T = 1/2.
    # x1: log(1 + (e^1.6 + e^-1.2) / e^1.2); x2: (log(1 + e^0 / e^0) + log(1 + e^0 / e^2)) / 2
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])
    truth = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    first = math.log(1 + (math.exp(1.6) + math.exp(-1.2)) / math.exp(1.2))
    second = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    found = soft_triplet_loss(x, truth, ~truth, targets, 0.5)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6), "x3 has no wrong label and does not count"
    assert soft_triplet_loss(x[2:], truth[2:], ~truth[2:], targets).item() == 0


def test_the_colder_the_soft_triplet_the_more_it_pushes_the_hardest_wrong_label_alone() -> None:
    targets, truth = torch.eye(3), torch.tensor([[True, False, False]])
    pushes = []
    for temperature in (1.0, 0.1):
        x = torch.tensor([[0.5, 0.6, 0.1]], requires_grad=True)
        soft_triplet_loss(x, truth, ~truth, targets, temperature).backward()
        assert x.grad is not None
        assert x.grad[0, 0] < 0 < x.grad[0, 1]
        pushes.append((x.grad[0, 1] / x.grad[0, 2].abs()).item())
    assert pushes[1] > pushes[0]


CLUSTERS = torch.tensor([0, 0, 1, 2, 2, 2])


def grouped_batch(rows: int, generator: torch.Generator) -> Batch:
    """Windows of one song with the first label of six, in three clusters whose centres are the targets."""
    truth = torch.tensor([[True, False, False, False, False, False]])
    alike = CLUSTERS[:, None] == CLUSTERS[None, :]
    first = torch.tensor([True, False, True, True, False, False])
    nothing = torch.zeros(rows, 3)
    songs = torch.zeros(rows, dtype=torch.int64)
    one = TrainingSet("x", nothing, songs, truth, torch.eye(3)[CLUSTERS], CLUSTERS, alike_LL=alike, first_L=first)
    return Batch(nothing, songs, one, generator)


def test_a_negative_never_shares_the_true_centre() -> None:
    drawn, usable = grouped_batch(4_000, seeded()).draw_wrong(1)
    assert usable.all()
    assert drawn[:, 0].max() == 0
    assert drawn[:, 1].mean().item() == pytest.approx(1 / 4, abs=0.03), "a label of another cluster, each as likely"


def test_whole_clusters_can_be_drawn_each_as_likely_as_another() -> None:
    drawn, _ = grouped_batch(4_000, seeded()).draw_wrong(1, distinct=True)
    assert drawn[:, 0].max() == 0
    assert drawn[:, 1].mean().item() == pytest.approx(1 / 2, abs=0.03)
    both, _ = grouped_batch(10, seeded()).draw_wrong(5, distinct=True)
    assert torch.equal(both, torch.tensor([[0.0, 0.5, 0.5]]).repeat(10, 1))


def test_a_label_of_the_true_cluster_is_not_contrasted_with_either() -> None:
    assert grouped_batch(1, seeded()).wrong_BL.tolist() == [[False, False, True, True, True, True]]
