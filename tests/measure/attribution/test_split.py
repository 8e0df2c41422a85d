"""The split of a step at a layer: sums that have to come out, and the stream's movement against forward mode."""

from __future__ import annotations

import pytest
import torch

from gradinoc.measure.attribution.accounting import attribute
from gradinoc.measure.attribution.shares import layer_gradients, movement, split_at_layers
from gradinoc.measure.attribution.slopes import (
    adapted_for_gradients,
    log_odds_score,
    put_weights,
    read_weights,
    trained_weights,
)
from gradinoc.measure.loading.load import load_model
from gradinoc.models.chat.encoding import encode


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


def test_splits_of_all_points_are_the_trapezoid_below_a_layer(language_model, run, behaviours):
    """Half of the step that led to a point and half of the next: together what the weights below a layer did."""
    model = language_model[0]
    layers = range(model.config.num_hidden_layers)
    directions = {layer: torch.eye(model.config.hidden_size)[:1] for layer in layers}
    asked = {"initial": run[0], "between": 0, "split": {"neutral": directions}, "outer": [1]}
    found = attribute(language_model, run[1:], behaviours, **asked)
    assert list(found.splits) == ["neutral"]
    assert len(found.splits["neutral"]) == len(run)
    blocks = found.modules["weight"].str.extract(r"layers\.(\d+)\.", expand=False).astype(int)
    for layer in layers:
        below = found.modules[(found.modules["behaviour"] == "neutral") & (blocks <= layer)]
        carried = sum(float(split.whole[layer].sum(1).mean()) for split in found.splits["neutral"])
        assert carried == pytest.approx(below["predicted"].sum(), rel=1e-2, abs=1e-3)
    unit, outer = directions[1][0].double(), found.outer["neutral"][1]
    along = sum(float(split.along[1][..., 0].sum()) for split in found.splits["neutral"])
    whole = sum(float(split.whole[1].sum()) for split in found.splits["neutral"])
    assert float(unit @ outer @ unit) == pytest.approx(along, rel=1e-6), "along any direction, from the outer products"
    assert float(outer.trace()) == pytest.approx(whole, rel=1e-6)


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
