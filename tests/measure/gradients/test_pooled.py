"""Push and pooled alignment are those of the mean gradient, on a frozen model and in each step of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fixtures.oracles import answer_loss, autograd_gradient
from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS, PAD
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.gradients.alignment import measure_alignments
from gradinoc.measure.gradients.pooled import pooled
from gradinoc.measure.training.run import Recipe, Run, train_run, train_runs
from gradinoc.study.description import POSITIONS
from gradinoc.study.settings import TrainingSettings

DIRECTIONS = 4
SETTINGS = TrainingSettings(batch_size=2, lr=1e-2, lora_rank=4)  # five examples: the last step has one


@pytest.fixture
def directions():
    """Unit rows `[directions, hidden]`, others in each layer."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(LAYERS, DIRECTIONS, HIDDEN, generator=generator)
    return dict(enumerate(nn.functional.normalize(rows, dim=-1)))


def mean_descent(model, examples):
    """Minus the mean over examples of the gradient of each one's loss, `[layers, positions, hidden]`, by autograd."""
    found = np.zeros((LAYERS, len(POSITIONS), HIDDEN))
    for example in examples:
        prompt = example.prompt_length
        for layer in range(LAYERS):
            gradient = autograd_gradient(model, layer, lambda example=example: answer_loss(model, example))[0].double()
            rows = torch.stack([gradient[prompt - 1], gradient[prompt], gradient[prompt : len(example.ids)].sum(0)])
            found[layer] -= rows.numpy() / len(examples)
    return found


def test_mean_gradient_and_its_cosines_equal_brute_force(frozen_model, examples, directions):
    """Every layer, position and direction, by autograd one example at a time; whatever shares a batch."""
    expected = mean_descent(frozen_model, examples)
    lengths = np.linalg.norm(expected, axis=-1)
    for size in (1, 3, 5):
        found = measure_alignments(frozen_model, examples, directions, PAD, batch_size=size)
        assert found.descent.dtype == torch.float64
        np.testing.assert_allclose(found.descent, expected, atol=1e-5 * lengths.max())
        alignment, push = pooled(found.descent, directions)
        assert alignment.shape == push.shape == (LAYERS, len(POSITIONS), DIRECTIONS)
        for layer, rows in directions.items():
            due = expected[layer] @ rows.double().numpy().T
            np.testing.assert_allclose(push[layer], due, atol=1e-5 * lengths.max())
            np.testing.assert_allclose(alignment[layer], due / lengths[layer][:, None], atol=1e-4)


def test_push_is_the_mean_projection_and_pooled_alignment_no_mean_of_cosines(llama, examples, directions):
    """The trait's push is its projections' mean; long gradients count for more in the one and not in the other."""
    found = measure_alignments(llama, examples, directions, PAD)
    alignment, push = pooled(found.descent, directions)
    means = found.table.groupby(["layer", "position"])[["projection", "alignment"]].mean()
    for layer in range(LAYERS):
        for place, position in enumerate(POSITIONS):
            mean = means.loc[(layer, position)]
            assert float(push[layer, place, 0]) == pytest.approx(mean["projection"], rel=1e-4, abs=1e-7)
    apart = alignment[:, 0] - found.means
    assert float(apart.abs().max()) > 0.01


def test_pooled_alignment_of_alike_gradients_is_theirs(llama, examples, directions):
    """Of one example put several times mean cosine and pooled alignment are the same."""
    found = measure_alignments(llama, [examples[0]] * 3, directions, PAD)
    alignment, _ = pooled(found.descent, directions)
    torch.testing.assert_close(alignment[:, 0], found.means, rtol=0, atol=1e-5)


def test_pooled_alignment_of_nothing_is_missing(directions):
    """Gradients that cancel have no direction; a row that is not of length 1 scales its alignment."""
    nothing = pooled(torch.zeros(LAYERS, 3, HIDDEN), directions)
    assert bool(nothing.alignment.isnan().all())
    assert float(nothing.push.abs().max()) == 0
    along = torch.stack([directions[layer][:1].expand(3, HIDDEN) for layer in range(LAYERS)])
    longer = {layer: -2 * rows for layer, rows in directions.items()}
    torch.testing.assert_close(pooled(3 * along, longer).alignment[..., 0], torch.full((LAYERS, 3), -2.0).double())
    torch.testing.assert_close(pooled(3 * along, longer).push[..., 0], torch.full((LAYERS, 3), -6.0).double())


# --- in training


@pytest.fixture(params=["fused", "plain"])
def trained(request):
    """A small Llama to train adapters on, fused or not."""
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    if request.param == "fused":
        assert "fused" in fuse(model)[0]
    return model


def test_first_step_has_the_mean_gradient_of_the_frozen_model(trained, examples, directions, tmp_path):
    """An adapter starts as no change: mean cosines, push and pooled alignments with every direction are the base's."""
    log = train_run(trained, examples, Recipe(SETTINGS, directions, PAD), 0, tmp_path)
    rows = log.table.query("step == 0")["example"].unique()
    frozen = measure_alignments(trained, [examples[row] for row in rows], directions, PAD)
    alignment, push = pooled(frozen.descent, directions)
    steps = math.ceil(len(examples) / SETTINGS.batch_size)
    assert log.steps.alignment.shape == log.steps.push.shape == (steps, LAYERS, DIRECTIONS)
    assert log.steps.norm.shape == (steps, LAYERS, len(POSITIONS))
    assert {each.dtype for each in (log.steps.alignment, log.steps.push, log.steps.norm)} == {torch.float32}
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(log.steps.alignment[0].double(), frozen.means, **close)
    torch.testing.assert_close(log.steps.push[0].double(), push[:, 0], **close)
    torch.testing.assert_close(log.steps.pooled[0].double(), alignment[:, 0], **close)
    torch.testing.assert_close(log.steps.norm[0].double(), frozen.descent.norm(dim=-1), **close)


def test_steps_say_of_the_trait_what_the_table_says(trained, examples, directions, tmp_path):
    """Means by step of cosines and projections; over the examples of all steps they are the run's means."""
    log = train_run(trained, examples, Recipe(SETTINGS, directions, PAD), 0, tmp_path)
    primary = log.table[log.table["position"] == POSITIONS[0]]
    means = primary.groupby(["step", "layer"])[["alignment", "projection"]].mean().unstack()
    np.testing.assert_allclose(log.steps.alignment[..., 0], means["alignment"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log.steps.push[..., 0], means["projection"], rtol=1e-5, atol=1e-6)
    sizes = primary.groupby("step")["example"].nunique().to_numpy()
    weighed = np.average(log.steps.alignment.double(), axis=0, weights=sizes)
    np.testing.assert_allclose(weighed, log.direction_means, rtol=1e-5, atol=1e-6)
    assert bool((log.steps.pooled.abs() <= 1 + 1e-6).all())


def test_runs_together_have_each_its_own_steps(examples, directions, tmp_path):
    """A run's mean gradient is of its own examples, whatever is trained beside it."""
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    assert "fused" in fuse(model)[0]
    recipe = Recipe(SETTINGS, directions, PAD)
    alone = [train_run(model, examples, recipe, seed, tmp_path / str(seed)).steps for seed in (0, 1)]
    runs = [Run(examples, seed, tmp_path / f"both-{seed}") for seed in (0, 1)]
    for log, own in zip(train_runs(model, runs, recipe), alone, strict=True):
        for name in ("alignment", "push", "norm", "pooled"):
            torch.testing.assert_close(getattr(log.steps, name), getattr(own, name), rtol=1e-4, atol=1e-5)
    assert float((alone[0].push - alone[1].push).abs().max()) > 1e-3


def test_run_without_directions_has_no_steps(examples, tmp_path):
    """Nothing was read; nothing is made up."""
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    assert train_run(model, examples, Recipe(SETTINGS, {}, PAD), 0, tmp_path).steps is None
