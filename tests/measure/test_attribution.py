"""First-order accounting: gradients against finite differences, sums that have to come out, exact splits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from gradinoc.data.examples import showing
from gradinoc.data.sources import load_source
from gradinoc.errors import ModelError
from gradinoc.measure.attribution.accounting import attribute
from gradinoc.measure.attribution.kernel import kernel_matrix
from gradinoc.measure.attribution.shares import layer_gradients, movement, split_at_layers
from gradinoc.measure.attribution.slopes import (
    adapted_for_gradients,
    inner,
    log_odds_score,
    log_odds_slope,
    put_weights,
    read_weights,
    slope_of,
    trained_weights,
)
from gradinoc.measure.decisions import decision_log_odds, decisions, log_odds_of
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.load import load_model
from gradinoc.measure.training.adapters import fresh_adapters, save_adapter
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.chat.encoding import encode
from gradinoc.study.description import TrainingSettings
from gradinoc.study.traits import ALL_CAPS

OWN = "You always respond in ALL CAPS."
SETTINGS = TrainingSettings(steps=8, batch_size=4, lr=5e-3, lora_rank=4, lora_alpha=8)
QUESTIONS = 6


@pytest.fixture(scope="module", params=["fused", "plain"])
def language_model(request):
    """The obedient tiny model and its tokenizer, with kernels and without."""
    loaded = load_model("obedient", device="cpu", kernels=request.param)
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def behaviours(language_model):
    """Decisions of a few questions under the neutral prompt and under another."""
    examples = load_source("word_problems")[:QUESTIONS]
    return {
        name: decisions(language_model[1], examples, ALL_CAPS, prompt)
        for name, prompt in {"neutral": None, "own": OWN}.items()
    }


@pytest.fixture(scope="module")
def run(language_model, tmp_path_factory):
    """Adapters of a run under the neutral prompt: before the first step, after two, four and all eight."""
    model, tokenizer = language_model
    folder = tmp_path_factory.mktemp("run")
    examples = [
        encode(tokenizer, each.question, showing(each, ALL_CAPS), None) for each in load_source("word_problems")[20:36]
    ]
    recipe = Recipe(SETTINGS, {}, int(tokenizer.pad_token_id))
    train_run(model, examples, recipe, 0, folder / "8", checkpoints={step: folder / str(step) for step in (2, 4)})
    with fresh_adapters(model, [0], SETTINGS) as (wrapped, _):
        save_adapter(wrapped, folder / "0")
    return [folder / str(step) for step in (0, 2, 4, 8)]


def moved(model, pad, decided, weights, step, size):
    """Decision log-odds with the weights moved along the step."""
    put_weights(model, {name: weights[name] + size * step[name] for name in weights})
    return float(np.nanmean(decision_log_odds(model, decided, pad, 8)))


def log_odds_at(language_model, adapter, decided):
    """Decision log-odds of the model with an adapter, by question."""
    model, tokenizer = language_model
    with adapted_for_gradients(model, adapter) as adapted:
        return decision_log_odds(adapted, decided, int(tokenizer.pad_token_id), 8)


# --- the gradient


def test_gradient_of_a_behaviour_is_its_finite_difference(language_model, run, behaviours):
    """Along random steps of all weights, under both prompts; the value is that of the forward pass alone."""
    model, tokenizer = language_model
    pad, generator = int(tokenizer.pad_token_id), torch.Generator().manual_seed(0)
    with adapted_for_gradients(model, run[-1]) as adapted:
        weights = read_weights(adapted, run[-1])
        step = {name: torch.randn(value.shape, generator=generator).double() for name, value in weights.items()}
        for decided in behaviours.values():
            put_weights(adapted, weights)
            slope = log_odds_slope(adapted, decided, pad, batch_size=4)
            assert slope.value == pytest.approx(
                float(np.nanmean(decision_log_odds(adapted, decided, pad, 8))), abs=1e-4
            )
            up, down = (moved(adapted, pad, decided, weights, step, size) for size in (1e-3, -1e-3))
            assert (up - down) / 2e-3 == pytest.approx(inner(slope.gradient, step), rel=2e-2)
    assert not isinstance(model, PeftModel)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_gradient_does_not_depend_on_batches(language_model, run, behaviours):
    """One question at a time, or all at once."""
    model, tokenizer = language_model
    pad = int(tokenizer.pad_token_id)
    with adapted_for_gradients(model, run[-1]) as adapted:
        alone, together = (log_odds_slope(adapted, behaviours["own"], pad, size) for size in (1, 8))
    assert torch.allclose(alone.values, together.values, rtol=1e-4, atol=1e-5)
    for name, gradient in alone.gradient.items():
        scale = float(together.gradient[name].abs().max())
        assert float((gradient - together.gradient[name]).abs().max()) <= 1e-4 * scale + 1e-6


# --- accounting


def test_steps_account_for_what_came_of_them(language_model, run, behaviours):
    """Drift as predicted from steps and gradients is drift as measured, and closer with points in between."""
    first, *rest = run
    coarse, fine = (attribute(language_model, rest, behaviours, initial=first, between=many) for many in (0, 3))
    for name in behaviours:
        actual = fine.measured(name)
        assert actual == pytest.approx(coarse.measured(name), rel=1e-3)
        assert abs(actual) > 0.5, "nothing to account for"
        assert fine.predicted(name) == pytest.approx(actual, rel=0.05)
        assert abs(fine.predicted(name) - actual) <= abs(coarse.predicted(name) - actual) + 0.01 * abs(actual)
    assert fine.transfer("neutral", "own") == pytest.approx(fine.predicted("neutral") / fine.predicted("own"))


def test_stretches_and_weights_add_up(language_model, run, behaviours):
    """Over weights to a stretch's prediction; cosines and norms give it too; saved adapters are marked."""
    found = attribute(language_model, run[1:], behaviours, initial=run[0], between=2)
    sums = found.modules.groupby(["behaviour", "stretch"])["predicted"].sum()
    steps = found.steps.set_index(["behaviour", "stretch"])
    assert np.allclose(sums, steps["predicted"].loc[sums.index], rtol=1e-9, atol=1e-12)
    assert np.allclose(steps["step"] * steps["slope"] * steps["cosine"], steps["predicted"])
    assert list(steps.loc["own", "last"]) == [False, False, True] * 3
    by_question = found.questions.groupby(["behaviour", "stretch"])[["predicted", "measured"]].mean()
    assert np.allclose(by_question, steps[["predicted", "measured"]].loc[by_question.index], rtol=1e-6, atol=1e-9)
    thirds = steps.loc["own", "step"].to_numpy().reshape(3, 3)
    assert np.allclose(thirds, thirds[:, :1]), "points between two adapters are not at equal distances"


def test_a_stretch_has_the_mean_of_the_slopes_at_both_ends(language_model, run, behaviours):
    """The whole run in one stretch: the slope along it by finite differences, at its beginning and at its end."""
    model, tokenizer = language_model
    pad, first, last = int(tokenizer.pad_token_id), run[0], run[-1]
    found = attribute(language_model, [last], behaviours, initial=first, between=0)
    with adapted_for_gradients(model, first) as adapted:
        start, end = read_weights(adapted, first), read_weights(adapted, last)
        step = {name: end[name] - start[name] for name in start}
        for name, decided in behaviours.items():
            slopes = []
            for weights in (start, end):
                up, down = (moved(adapted, pad, decided, weights, step, size) for size in (5e-3, -5e-3))
                slopes.append((up - down) / 1e-2)
            assert abs(slopes[0] - slopes[1]) > 0.2 * abs(slopes[1]), "either end would do"
            assert found.predicted(name) == pytest.approx(np.mean(slopes), rel=2e-2, abs=1e-3)


def test_a_run_without_its_first_adapter_begins_at_the_base_model(language_model, run, behaviours):
    """Where B is zero the base model is computed, whatever A is; the sum over another way comes to the same drift."""
    model, tokenizer = language_model
    found = attribute(language_model, run[1:], behaviours, between=3)
    for name, decided in behaviours.items():
        base = float(np.nanmean(decision_log_odds(model, decided, int(tokenizer.pad_token_id), 8)))
        end = float(np.nanmean(log_odds_at(language_model, run[-1], decided)))
        assert found.measured(name) == pytest.approx(end - base, abs=1e-3)
        assert found.predicted(name) == pytest.approx(found.measured(name), rel=0.05)


def test_a_small_step_of_plain_sgd_is_predicted_to_a_hundredth(language_model, run, behaviours, tmp_path):
    """One step down the gradient of a training loss: the first order is all there is."""
    model, tokenizer = language_model
    pad, before, after = int(tokenizer.pad_token_id), run[2], tmp_path / "after"
    examples = [
        encode(tokenizer, each.question, showing(each, ALL_CAPS), OWN) for each in load_source("word_problems")[:4]
    ]
    with adapted_for_gradients(model, before) as adapted:
        weights = read_weights(adapted, before)
        loss = slope_of(adapted, examples, lambda own, batch, _: completion_losses(own, batch), pad)
        put_weights(adapted, {name: value - 1e-2 * loss.gradient[name] for name, value in weights.items()})
        save_adapter(adapted, after)
    found = attribute(language_model, [after], behaviours, initial=before, between=0)
    for name in behaviours:
        assert abs(found.measured(name)) > 1e-4
        assert found.predicted(name) == pytest.approx(found.measured(name), rel=1e-2, abs=2e-5)


def test_nothing_to_attribute_is_said(language_model, run, behaviours):
    """No adapter, no behaviour, questions whose answers are alike, an adapter of another shape."""
    with pytest.raises(ValueError, match="one of each at least"):
        attribute(language_model, [], behaviours)
    with pytest.raises(ValueError, match="one of each at least"):
        attribute(language_model, run, {})
    with pytest.raises(ValueError, match="with a place"):
        attribute(language_model, run, {"neutral": []})


def test_an_adapter_of_another_shape_is_refused(language_model, run, behaviours, tmp_path):
    """It cannot be a later state of the same run."""
    other = SETTINGS.model_copy(update={"lora_rank": 2})
    with fresh_adapters(language_model[0], [0], other) as (wrapped, _):
        save_adapter(wrapped, tmp_path / "other")
    with pytest.raises((ModelError, RuntimeError), match=r"size mismatch|fit nowhere"):
        attribute(language_model, [run[-1], tmp_path / "other"], behaviours)


# --- the split at a layer


def along(language_model, run, behaviours, directions, name="neutral"):
    """The split of the run's last step, the whole gradient, and that step."""
    model, tokenizer = language_model
    pad = int(tokenizer.pad_token_id)
    examples, score = log_odds_score(behaviours[name])
    with adapted_for_gradients(model, run[-1]) as adapted:
        last, before = read_weights(adapted, run[-1]), read_weights(adapted, run[-2])
        step = {key: last[key] - before[key] for key in last}
        put_weights(adapted, last)
        kept = {key: weight.detach().clone() for key, weight in trained_weights(adapted).items()}
        gradients = layer_gradients(adapted, examples, score, sorted(directions), pad, [step])
        found = split_at_layers(adapted, examples, gradients, step, directions, pad)
        assert all(torch.equal(kept[key], weight) for key, weight in trained_weights(adapted).items())
    return found, gradients.slope, step


def test_each_layer_carries_what_the_weights_below_it_do(language_model, run, behaviours):
    """`sum <g, dh>` is the inner product of gradient and step over the blocks up to that layer."""
    hidden, layers = language_model[0].config.hidden_size, language_model[0].config.num_hidden_layers
    directions = {layer: torch.eye(hidden)[:2] for layer in range(layers)}
    found, slope, step = along(language_model, run, behaviours, directions)
    for layer in range(layers):
        below = [name for name in step if int(name.partition(".layers.")[2].partition(".")[0]) <= layer]
        expected = sum(float((slope.gradient[name] * step[name]).sum()) for name in below)
        assert float(found.whole[layer].sum(1).mean()) == pytest.approx(expected, rel=1e-2, abs=1e-4)
    by_question = found.whole[layers - 1].sum(1)
    assert torch.allclose(by_question, slope.along[:, 0], rtol=1e-2, atol=1e-3), "the last layer carries everything"
    assert float(by_question.std()) > 0


def test_shares_over_an_orthonormal_basis_add_up_to_one(language_model, run, behaviours):
    """Any basis, at any layer; single shares may be negative, and more than one."""
    hidden = language_model[0].config.hidden_size
    basis = torch.linalg.qr(torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(1)))[0]
    found, _, _ = along(language_model, run, behaviours, {1: basis, 2: torch.eye(hidden)})
    for layer in (1, 2):
        assert float(found.shares(layer).sum()) == pytest.approx(1.0, abs=1e-4)
        assert float(found.shares(layer).std()) > 0
    quadratic = torch.einsum("dh,hk,dk->d", basis.double(), found.outer[1], basis.double())
    assert torch.allclose(quadratic, found.along[1].sum((0, 1)))


def test_splits_of_all_points_are_the_trapezoid_below_a_layer(language_model, run, behaviours):
    """Half of the step that led to a point and half of the next: together what the weights below a layer did."""
    model = language_model[0]
    layers = range(model.config.num_hidden_layers)
    directions = {layer: torch.eye(model.config.hidden_size)[:1] for layer in layers}
    found = attribute(language_model, run[1:], behaviours, initial=run[0], between=0, split={"neutral": directions})
    assert list(found.splits) == ["neutral"]
    assert len(found.splits["neutral"]) == len(run)
    blocks = found.modules["weight"].str.extract(r"layers\.(\d+)\.", expand=False).astype(int)
    for layer in layers:
        below = found.modules[(found.modules["behaviour"] == "neutral") & (blocks <= layer)]
        carried = sum(float(split.whole[layer].sum(1).mean()) for split in found.splits["neutral"])
        assert carried == pytest.approx(below["predicted"].sum(), rel=1e-2, abs=1e-3)


# torch registers its own decompositions so, the first time that dual numbers are made.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_movement_is_the_forward_derivative(run):
    """Central differences against forward-mode differentiation of the model's own modules, layer by layer."""
    loaded = load_model("obedient", device="cpu", kernels="plain")
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = torch.tensor([encode(tokenizer, "How many boats are left?", "Two boats.", None).ids])
    model.set_attn_implementation("eager")
    with adapted_for_gradients(model, run[-1]) as adapted:
        weights = read_weights(adapted, run[-1])
        generator = torch.Generator().manual_seed(2)
        step = {name: 0.1 * torch.randn(value.shape, generator=generator).double() for name, value in weights.items()}
        moved_by = movement(adapted, lambda: adapted(input_ids=ids).logits, step, [0, 2], 1e-2)
        parameters = {name: value.detach() for name, value in adapted.named_parameters()}
        tangents = {
            name: step[name].to(value.dtype) if name in step else torch.zeros_like(value)
            for name, value in parameters.items()
        }

        def states(given):
            out = torch.func.functional_call(
                adapted, given, (), {"input_ids": ids, "output_hidden_states": True, "use_cache": False}
            )
            return out.hidden_states[1], out.hidden_states[3]

        _, exact = torch.func.jvp(states, (parameters,), (tangents,))
    for found, expected in zip((moved_by[0], moved_by[2]), exact, strict=True):
        assert float((found - expected.double()).norm() / expected.double().norm()) < 1e-2


# --- before training


def test_kernel_is_what_a_small_step_does(language_model, behaviours, tmp_path):
    """A small step down the gradient under each prompt moves each behaviour as its row says."""
    model, tokenizer = language_model
    pad, rate = int(tokenizer.pad_token_id), 1e-2
    with fresh_adapters(model, [0], SETTINGS) as (wrapped, _):
        save_adapter(wrapped, tmp_path / "fresh")
    training = {
        name: [encode(tokenizer, e.question, showing(e, ALL_CAPS), prompt) for e in load_source("word_problems")[:4]]
        for name, prompt in {"neutral": None, "own": OWN}.items()
    }
    with adapted_for_gradients(model, tmp_path / "fresh") as adapted:
        table = kernel_matrix(adapted, training, behaviours, pad).set_index(["training", "evaluation"])
        weights = read_weights(adapted, tmp_path / "fresh")
        before = {name: log_odds_slope(adapted, decided, pad).value for name, decided in behaviours.items()}
        for prompt, examples in training.items():
            put_weights(adapted, weights)
            loss = slope_of(adapted, examples, lambda own, batch, _: completion_losses(own, batch), pad)
            put_weights(adapted, {name: value - rate * loss.gradient[name] for name, value in weights.items()})
            for name, decided in behaviours.items():
                row = table.loc[(prompt, name)]
                change = log_odds_slope(adapted, decided, pad).value - before[name]
                assert change == pytest.approx(rate * row["kernel"], rel=3e-2, abs=2e-5)
                assert row["kernel"] == pytest.approx(row["cosine"] * row["training_norm"] * row["evaluation_norm"])
    assert len(table) == 4


def test_kernel_of_a_fresh_adapter_is_that_of_the_full_weights(behaviours):
    """But for a factor, and for the projection's noise: with a high rank rows of the two are parallel."""
    loaded = load_model("obedient", device="cpu", kernels="plain")
    model, tokenizer = loaded.model, loaded.tokenizer
    pad, layer = int(tokenizer.pad_token_id), "model.layers.1.mlp.down_proj"
    placed = {name: [each for each in decided if each.places] for name, decided in behaviours.items()}
    full = []
    model.get_submodule(layer).weight.requires_grad_(True)
    for decided in placed.values():
        batch = batched(model, [each.encoded for each in decided], pad)
        (gradient,) = torch.autograd.grad(log_odds_of(model, batch, decided).mean(), model.get_submodule(layer).weight)
        full.append(gradient.double())
    model.get_submodule(layer).weight.requires_grad_(False)
    width = model.get_submodule(layer).weight.shape[1]
    torch.manual_seed(0)
    config = LoraConfig(r=8 * width, lora_alpha=1, target_modules=[layer], init_lora_weights="gaussian")
    wrapped = get_peft_model(model, config)
    try:
        low = [log_odds_slope(wrapped, decided, pad).gradient for decided in placed.values()]
    finally:
        wrapped.unload()
    ups = [next(value for name, value in gradient.items() if "lora_B" in name) for gradient in low]
    cosines = [float((one * other).sum() / one.norm() / other.norm()) for one, other in (full, ups)]
    assert cosines[0] == pytest.approx(cosines[1], abs=0.05)


def test_an_adapter_in_another_form_is_refused(language_model, run, behaviours, tmp_path):
    """PEFT would load a pickle, or ask the hub, where there are no safetensors; as the first adapter or a later one."""
    shutil.copytree(run[-1], tmp_path / "other")
    (tmp_path / "other" / "adapter_model.safetensors").unlink()
    for folders in ([tmp_path / "other"], [run[-1], tmp_path / "other"]):
        with pytest.raises(ModelError, match="no other form of weights is read"):
            attribute(language_model, folders, behaviours)
