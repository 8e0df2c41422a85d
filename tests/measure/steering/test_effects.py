"""What steering does to decisions is measured along every direction at once, and equals one text at a time."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch

from fixtures.oracles import replaced_output
from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS
from gradinoc.errors import NumericalError
from gradinoc.measure.behaviour.decisions import Decision
from gradinoc.measure.fast import Common, variants
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.steering import effects
from gradinoc.measure.steering.effects import half_distances, steering_effects, with_matched
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded

BAND = (1, 2)
STRENGTHS = (-1.0, 0.0, 1.0, 2.0)
SCALES = {1: 3.0, 2: 0.5}


def frozen(name, kernels):
    """A small random model, on its own modules or fused where it can be."""
    model = ARCHITECTURES[name]().requires_grad_(False)
    if kernels == "fused" and not fuse(model)[0].endswith("packed"):
        pytest.skip("runs on its own modules")
    return model


@pytest.fixture(params=["plain", "fused"])
def kernels(request):
    """On which modules."""
    return request.param


@pytest.fixture(params=sorted(ARCHITECTURES))
def model(request, kernels):
    """Every architecture, both ways."""
    return frozen(request.param, kernels)


@pytest.fixture
def directions():
    """Three unit rows in each layer of a band."""
    rows = torch.randn(LAYERS, 3, HIDDEN, generator=torch.Generator().manual_seed(7))
    return {layer: torch.nn.functional.normalize(rows[layer], dim=-1) for layer in BAND}


@pytest.fixture
def decided(examples):
    """Decisions of the examples: one place, several, none; a prompt of a single token."""
    ordinary = [*examples, Encoded((9, 10, 11, 12), 1)]
    places = [(4, 5), (9,), (), (6, 8, 10), (12,), (2,)]
    return [
        Decision(
            each.ids[: at[-1] + 1] if at else each.ids[: each.prompt_length],
            each.prompt_length, at, tuple((each.ids[place] + 7) % 64 for place in at),
        )
        for each, at in zip(ordinary, places, strict=True)
    ]  # fmt: skip


def by_hand(model, shifts, first):
    """The model with vectors added by hooks of this test, from token `first` on, for one text without padding."""

    def adding(shift):
        return lambda hidden: torch.cat([hidden[:, :first], hidden[:, first:] + shift], dim=1)

    stack = ExitStack()
    for layer, shift in shifts.items():
        stack.enter_context(replaced_output(model, layer, adding(shift)))
    return stack


def added(directions, row, strength):
    """What is added at each block of the band: at the second what is beyond that of the first, which is there still."""
    low, high = (strength * SCALES[layer] * directions[layer][row] for layer in BAND)
    return dict(zip(BAND, (low, high - low), strict=True))


def odds_by_hand(model, decision, shifts, off=0):
    """Mean over places of log p(trait's token) - log p(ordinary one), from a softmax over everything."""
    if not decision.places:
        return float("nan")
    with by_hand(model, shifts, max(0, decision.prompt_length - 1 + off)), torch.no_grad():
        chances = model(torch.tensor([decision.ids])).logits[0].double().log_softmax(-1)
    pairs = zip(decision.places, decision.trait, strict=True)
    return np.mean([float(chances[at - 1, trait] - chances[at - 1, decision.ids[at]]) for at, trait in pairs])


def expected_odds(model, decided, directions):
    """`[directions, strengths, examples]`."""
    return np.array([
        [
            [
                odds_by_hand(model, each, added(directions, row, strength))
                for each in decided
            ]
            for strength in STRENGTHS
        ]
        for row in range(3)
    ])  # fmt: skip


def as_array(table, column):
    """`[directions, strengths, examples]` of a table in its order."""
    shape = (table["direction"].nunique(), table["strength"].nunique(), table["example"].nunique())
    return table[column].to_numpy().reshape(shape)


def test_log_odds_equal_one_text_at_a_time(model, decided, directions):
    """Every direction, strength and example, with hooks written here; strength 0 is no steering."""
    table = steering_effects(model, decided, directions, SCALES, STRENGTHS)
    expected = expected_odds(model, decided, directions)
    np.testing.assert_allclose(as_array(table, "log_odds"), expected, rtol=1e-4, atol=1e-4)
    moved = np.abs(np.nan_to_num(expected[:, 2] - expected[:, 1])).max()
    assert moved > 0.05, "steering that moves nothing tests nothing"


@pytest.mark.parametrize("off", [-1, 1])
def test_other_tokens_would_be_seen(decided, directions, off):
    """From the token before the last prompt token on, or from the first answer token, other numbers come out."""
    model, shifts = frozen("llama", "plain"), added(directions, 0, 2.0)
    right, wrong = (np.array([odds_by_hand(model, each, shifts, by) for each in decided]) for by in (0, off))
    assert np.nanmax(np.abs(right - wrong)) > 0.01


def either_by_hand(model, decision, shifts):
    """Mean over places of -log(p(trait's token) + p(ordinary one)), from a softmax over everything."""
    with by_hand(model, shifts, decision.prompt_length - 1), torch.no_grad():
        chances = model(torch.tensor([decision.ids])).logits[0].double().softmax(-1)
    pairs = zip(decision.places, decision.trait, strict=True)
    return np.mean([-float((chances[at - 1, trait] + chances[at - 1, decision.ids[at]]).log()) for at, trait in pairs])


def test_loss_of_either_form_is_measured_along_the_trait_alone(kernels, decided, directions):
    """Nats, where the forms part; missing for the other directions, and where nothing is decided."""
    model = frozen("qwen3", kernels)
    loss = as_array(steering_effects(model, decided, directions, SCALES, STRENGTHS), "loss")
    assert np.isnan(loss[1:]).all()
    for place, strength in enumerate(STRENGTHS):
        shifts = added(directions, 0, strength)
        for row, each in enumerate(decided):
            if each.places:
                assert loss[0, place, row] == pytest.approx(either_by_hand(model, each, shifts), rel=1e-4)
            else:
                assert np.isnan(loss[0, place, row])


def test_table_is_in_order(kernels, decided, directions):
    """A row each of directions x strengths x examples; missing where an example has no place."""
    table = steering_effects(frozen("llama", kernels), decided, directions, SCALES, STRENGTHS)
    assert list(table) == ["direction", "strength", "example", "log_odds", "loss"]
    wanted = [(d, s, e) for d in range(3) for s in STRENGTHS for e in range(len(decided))]
    assert list(table[["direction", "strength", "example"]].itertuples(index=False, name=None)) == wanted
    assert table.loc[table["log_odds"].isna(), "example"].unique().tolist() == [2]


@pytest.mark.parametrize("tokens", [1, 7, 40, 10_000])
def test_size_of_passes_changes_nothing(kernels, decided, directions, tokens, monkeypatch):
    """A variant beside all others of its example, beside a few, and alone."""
    model = frozen("llama", kernels)
    expected = steering_effects(model, decided, directions, SCALES, STRENGTHS)["log_odds"]
    monkeypatch.setattr(effects, "TOKENS", tokens)
    found = steering_effects(model, decided, directions, SCALES, STRENGTHS)["log_odds"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def tokens_seen(model, layer, work):
    """How many tokens a block computes while `work` runs."""
    counted, block = [], decoder_blocks(model)[layer]
    own = block.forward

    def counting(hidden, *given, **named):
        counted.append(hidden.shape[0] * hidden.shape[1])
        return own(hidden, *given, **named)

    held = vars(block).get("forward")
    block.forward = counting
    try:
        work()
    finally:
        del block.forward
        if held is not None:
            block.forward = held
    return sum(counted)


@pytest.mark.parametrize("name", ["llama", "gpt2", "nemotron"])
def test_what_is_alike_is_computed_once(name, kernels, examples, directions):
    """The prompt once an example; blocks up to the lowest steered one on one copy of the answer; the rest on all."""
    model = frozen(name, kernels)
    places = [(each.prompt_length, len(each.ids) - 1) for each in examples]
    made = [Decision(each.ids, each.prompt_length, at, (5, 6)) for each, at in zip(examples, places, strict=True)]
    seen = [
        tokens_seen(model, layer, lambda: steering_effects(model, made, directions, SCALES, STRENGTHS, losses=False))
        for layer in range(LAYERS)
    ]
    prompt = sum(each.prompt_length - 1 for each in examples)
    ends = sum(len(each.ids) - each.prompt_length for each in examples)  # the last token predicts nothing
    longest = max(examples, key=lambda each: len(each.ids))
    trial = 2 * (len(longest.ids) - 1)  # whole rows, which the trial compares with
    once, each = longest.prompt_length - 1, len(longest.ids) - longest.prompt_length
    variants_each = 1 + 3 * 3
    assert seen[0] == seen[1] == prompt + ends + trial + once + each
    # The lowest steered block's own pass ends there: above it only variants are computed.
    assert seen[2] == prompt + ends * variants_each + trial + once + 2 * each


@pytest.mark.parametrize("fault", ["numbers", "error"])
def test_what_cannot_be_shared_is_computed_for_each(kernels, decided, directions, fault, monkeypatch):
    """A model that needs more of lower blocks than their output: the trial sees it, and results stay right."""
    model, own = frozen("llama", kernels), effects.variants

    def spoilt(model, example, count, common):
        batch, output = own(model, example, count, common)
        if output is not None and fault == "error":
            raise KeyError("keys of block 0")
        return batch, None if output is None else output + 0.01

    monkeypatch.setattr(effects, "variants", spoilt)
    found = as_array(steering_effects(model, decided, directions, SCALES, STRENGTHS), "log_odds")
    np.testing.assert_allclose(found, expected_odds(model, decided, directions), rtol=1e-4, atol=1e-4)


def test_shortened_decisions_are_their_first_places(kernels, decided, directions):
    """The log-odds of these places alone, and no token more."""
    model, short = frozen("llama", kernels), [each.first(2) for each in decided]
    assert [each.places for each in short] == [(4, 5), (9,), (), (6, 8), (12,), (2,)]
    assert [len(each.ids) for each in short] == [6, 10, 2, 9, 13, 3]
    found = as_array(steering_effects(model, short, directions, SCALES, STRENGTHS), "log_odds")
    np.testing.assert_allclose(found, expected_odds(model, short, directions), rtol=1e-4, atol=1e-4)


def test_windows_are_not_taken_for_whole_caches():
    """Of a model's own modules with windows no beginning is shared, and that is said."""
    with pytest.raises(NotImplementedError, match="more than all tokens' keys and values"):
        variants(frozen("mistral", "plain"), Encoded((5, 6, 7, 8), 2), 2, Common(True, 0))


def test_numbers_that_are_not_finite_stop_it(kernels, decided, directions):
    """By name of the example."""
    model = frozen("llama", kernels)
    model.get_submodule("model.layers.2.mlp.down_proj").weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="the log-odds of example 0 is nan"):
        steering_effects(model, decided, directions, SCALES, STRENGTHS)


def test_what_does_not_fit_together_is_refused(decided, directions):
    """Scales of other layers."""
    model = frozen("llama", "plain")
    with pytest.raises(ValueError, match=r"Expected scales of the layers \[1, 2\], received \[1\]"):
        steering_effects(model, decided, directions, {1: 1.0}, STRENGTHS)


def test_half_distance_is_planted():
    """Two clouds 6 apart along a unit vector, and apart otherwise across it."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(HIDDEN, generator=generator), dim=0)
    noise = torch.randn(40, HIDDEN, generator=generator)
    across = torch.randn(HIDDEN, generator=generator)
    across -= (across @ axis) * axis
    found = half_distances({1: noise + 6 * axis + across}, {1: noise}, {1: axis})
    assert found[1] == pytest.approx(3.0, rel=1e-5)
    with pytest.raises(ValueError, match="expected directions from the suppressing to the promoting prompt"):
        half_distances({1: noise}, {1: noise + 6 * axis}, {1: axis})


def test_matched_directions_come_after_the_traits():
    """Unit rows; the trait's first; the same draws for the same seed; in the span of the activations."""
    generator = torch.Generator().manual_seed(0)
    promote, suppress = ({layer: torch.randn(6, HIDDEN, generator=generator) for layer in range(LAYERS)} for _ in "ab")
    trait = {layer: torch.nn.functional.normalize(torch.ones(HIDDEN), dim=0) for layer in BAND}
    found, again = (with_matched(trait, promote, suppress, 4, 3) for _ in range(2))
    assert sorted(found) == list(BAND)
    for layer, rows in found.items():
        assert rows.shape == (5, HIDDEN)
        assert torch.equal(rows[0], trait[layer])
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(5))
        assert torch.equal(rows, again[layer])
        states = torch.cat([side[layer] - side[layer].mean(0) for side in (promote, suppress)])
        basis = torch.linalg.svd(states, full_matrices=False).Vh[:10]  # centred: two of twelve are none of their own
        torch.testing.assert_close(rows[1:] @ basis.T @ basis, rows[1:])
