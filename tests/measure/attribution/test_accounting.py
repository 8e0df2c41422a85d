"""First-order accounting: gradients against finite differences, sums that have to come out, exact splits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel

from fixtures.attributed import OWN, SETTINGS, log_odds_at, moved
from gradinoc.data.examples import showing
from gradinoc.data.sources import load_source
from gradinoc.errors import ModelError
from gradinoc.measure.attribution.accounting import attribute
from gradinoc.measure.attribution.slopes import (
    adapted_for_gradients,
    inner,
    log_odds_slope,
    put_weights,
    read_weights,
    slope_of,
)
from gradinoc.measure.behaviour.decisions import decision_log_odds
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.training.adapters import fresh_adapters, save_adapter
from gradinoc.models.chat.encoding import encode
from gradinoc.study.traits import ALL_CAPS

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


def test_an_adapter_in_another_form_is_refused(language_model, run, behaviours, tmp_path):
    """PEFT would load a pickle, or ask the hub, where there are no safetensors; as the first adapter or a later one."""
    shutil.copytree(run[-1], tmp_path / "other")
    (tmp_path / "other" / "adapter_model.safetensors").unlink()
    for folders in ([tmp_path / "other"], [run[-1], tmp_path / "other"]):
        with pytest.raises(ModelError, match="no other form of weights is read"):
            attribute(language_model, folders, behaviours)
