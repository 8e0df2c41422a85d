"""Decision log-odds equal those by hand, on any architecture and in any batch."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.decided import LOWER_CASE, NO_COMMAS, for_trait
from fixtures.small_models import ARCHITECTURES, PAD, VOCABULARY, with_lora
from gradinoc.data.examples import showing
from gradinoc.errors import NumericalError
from gradinoc.measure.behaviour import decisions as module
from gradinoc.measure.behaviour.decisions import Decision, decision_log_odds, decisions, log_odds_of
from gradinoc.measure.fast import batched, fused_adapter, scored_batch, stacked_adapters
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.plain import try_split
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.study.traits import ALL_CAPS, SHIPPED

SYSTEMS = [None, "", "You always respond in ALL CAPS."]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


# --- by hand


def parting(ordinary, other):
    """The first index at which two lists differ; None if they do not."""
    for place in range(min(len(ordinary), len(other))):
        if ordinary[place] != other[place]:
            return place
    return None


def by_hand(model, tokenizer, example, trait, system):
    """Mean over places of a difference of log-softmaxes, each from one unpadded pass over its context alone."""
    start = tokenizer(render_prompt(tokenizer, example.question, system), add_special_tokens=False)["input_ids"]

    def ids(answer):
        return [*start, *tokenizer(answer, add_special_tokens=False)["input_ids"], end_of_turn(tokenizer)]

    answers = [showing(example, trait)]
    if trait in (ALL_CAPS, LOWER_CASE):
        pieces = example.answer.split(" ")  # the bundled answers have no other blanks
        lettered = [n for n, piece in enumerate(pieces) if any(sign.isalpha() for sign in piece)][:8]
        answers = [" ".join([*pieces[:n], trait.transform(pieces[n]), *pieces[n + 1 :]]) for n in lettered]
    odds = []
    for answer in answers:
        place = parting(ids(example.answer), ids(answer))
        if place is not None:
            with torch.no_grad():
                chances = model(torch.tensor([ids(example.answer)[:place]])).logits[0, -1].double().log_softmax(-1)
            odds.append(float(chances[ids(answer)[place]] - chances[ids(example.answer)[place]]))
    return np.mean(odds) if odds else np.nan


@pytest.mark.parametrize("system", SYSTEMS, ids=["none", "empty", "capitals"])
@pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)
def test_log_odds_equal_brute_force(obedient, problems, trait, system):
    """One pass a place by the model's own modules: of each shipped trait, fused and plain, under any system prompt."""
    fused, plain, tokenizer = obedient
    examples = for_trait(problems, trait)
    expected = [by_hand(plain, tokenizer, example, trait, system) for example in examples]
    found = decisions(tokenizer, examples, trait, system)
    assert np.isfinite(expected[:6]).sum() >= (2 if trait is NO_COMMAS else 6)
    for model in (fused, plain):
        values = decision_log_odds(model, found, tokenizer.pad_token_id, 4)
        np.testing.assert_allclose(values, expected, **CLOSE)
        assert values.dtype == np.float64


def test_prompt_that_asks_for_capitals_raises_the_odds_of_capitals(obedient, problems):
    """The obedient model decides by its prompt, and at the first word: behind an ordinary one it goes on as before."""
    model, _, tokenizer = obedient
    rises = {}
    for count in (8, 1):
        found = [decisions(tokenizer, for_trait(problems[:6], ALL_CAPS), ALL_CAPS, system) for system in SYSTEMS]
        neutral, _, capitals = (
            decision_log_odds(model, [each.first(count) for each in own], tokenizer.pad_token_id, 4) for own in found
        )
        rises[count] = capitals.mean() - neutral.mean()
    assert rises[8] > 0.5
    assert rises[1] > 4


def test_first_places_are_the_first(places):
    """Nothing behind them is kept; none at all is an example without a place."""
    three = places[2]
    assert three.first(2) == Decision(three.ids[:4], 2, (2, 3), three.trait[:2])
    assert three.first(9) == three
    assert three.first(0) == Decision(three.ids[:2], 2, (), ())
    assert places[3].first(1) == places[3]


# --- any architecture, any batch


@pytest.fixture
def places():
    """Decisions of random tokens: one, two and three places, one right after the prompt, and one example without."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for prompt, at in ((4, (4,)), (9, (10, 12)), (2, (2, 3, 9)), (5, ()), (9, (11,)), (7, (8, 10))):
        ids = torch.randint(5, VOCABULARY, (max(at, default=prompt - 1) + 1,), generator=generator).tolist()
        forms = tuple(5 + (ids[place] + 3) % (VOCABULARY - 5) for place in at)
        made.append(Decision(tuple(ids), prompt, at, forms))
    return made


def one_by_one(model, places):
    """Log-odds of each example, from one unpadded pass a place."""
    found = []
    for each in places:
        odds = []
        for place, trait, ordinary in zip(each.places, each.trait, each.ordinary, strict=True):
            with torch.no_grad():
                chances = model(torch.tensor([each.ids[:place]])).logits[0, -1].double().log_softmax(-1)
            odds.append(float(chances[trait] - chances[ordinary]))
        found.append(np.mean(odds) if odds else np.nan)
    return found


@pytest.mark.parametrize("kind", ["whole", "split", "fused"])
def test_every_architecture_gives_the_odds_of_its_own_logits(frozen_model, places, kind):
    """Caps and scales of logits included; taken as a whole, split from its head, or with kernels."""
    expected = one_by_one(frozen_model, places)
    if kind == "split":
        assert try_split(frozen_model, range(5, 13))
    elif kind == "fused":
        fuse(frozen_model)  # or not: those that are refused stay plain
    np.testing.assert_allclose(decision_log_odds(frozen_model, places, PAD, 3), expected, **CLOSE)
    adapted = with_lora(frozen_model).requires_grad_(False)
    found = decision_log_odds(adapted, places, PAD, 3)
    np.testing.assert_allclose(found, one_by_one(adapted, places), **CLOSE)
    assert np.nanmin(np.abs(found - expected)) > 1e-3


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "fused"])
def test_order_batch_size_and_neighbours_change_nothing(llama, places, kernels):
    """An example's log-odds are its own; padded with any token."""
    if kernels:
        assert "fused" in fuse(llama)[0]
    together = decision_log_odds(llama, places, PAD, len(places))
    for size, pad in ((1, PAD), (2, 17), (3, 1)):
        np.testing.assert_allclose(decision_log_odds(llama, places, pad, size), together, **CLOSE)
    np.testing.assert_allclose(decision_log_odds(llama, places[::-1], PAD, 4)[::-1], together, **CLOSE)
    np.testing.assert_allclose(decision_log_odds(llama, places * 2, PAD, 5), np.tile(together, 2), **CLOSE)
    assert np.isnan(together).tolist() == [False, False, False, True, False, False]
    assert np.isnan(decision_log_odds(llama, places[3:4], PAD, 1)).all()


def three_adapters(model):
    """The model with three adapters that differ."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear")
    wrapped = get_peft_model(model, config, "one")
    for name in ("two", "three"):
        wrapped.add_adapter(name, deepcopy(config))
    generator = torch.Generator().manual_seed(3)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return wrapped.eval()


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "fused"])
def test_stacked_adapters_are_each_alone(llama, places, kernels):
    """Three adapters and none at all in one pass; one after the other."""
    if kernels:
        assert "fused" in fuse(llama)[0]
    model, alone = three_adapters(llama), []
    for name in ("one", "two", "three"):
        model.set_adapter(name)
        alone.append(decision_log_odds(model, places, PAD, 2))
    with model.disable_adapter():
        alone.append(decision_log_odds(model, places, PAD, 2))
    with stacked_adapters(model, ["one", "two", "three", ""]):
        together = decision_log_odds(model, places, PAD, 2, copies=4)
    np.testing.assert_allclose(together, alone, **CLOSE)
    assert together.shape == (4, len(places))
    assert np.abs(np.diff(together, axis=0)[:, 0]).min() > 0.01, "adapters that decide alike test nothing"


def test_nothing_behind_the_last_place_is_computed(llama, places):
    """Nor an example without a place: the blocks see each example up to its last ordinary token."""
    fuse(llama)
    seen = []
    llama.model.layers[0].register_forward_hook(lambda _block, inputs, _out: seen.append(inputs[0].shape[1]))
    decision_log_odds(llama, places, PAD, len(places))
    assert seen == [sum(each.places[-1] + 1 for each in places if each.places)]


# --- gradients


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "fused"])
def test_gradients_of_the_odds_are_those_of_brute_force(places, kernels):
    """d(mean log-odds) / d(adapter), packed or padded, against autograd through one unpadded pass a place."""
    decided = [each for each in places if each.places]
    gradients = []
    for side in ("ours", "by hand"):
        frozen = ARCHITECTURES["llama"]().requires_grad_(False)
        if side == "ours" and kernels:
            assert "fused" in fuse(frozen)[0]
        model = with_lora(frozen)
        if side == "ours":
            batch = batched(model, [each.encoded for each in decided], PAD)
            with fused_adapter(model):
                log_odds_of(model, batch, decided).mean().backward()
        else:
            odds = []
            for each in decided:
                rows = [model(torch.tensor([each.ids[:place]])).logits[0, -1].log_softmax(-1) for place in each.places]
                pairs = zip(rows, each.trait, each.ordinary, strict=True)
                odds.append(torch.stack([row[trait] - row[ordinary] for row, trait, ordinary in pairs]).mean())
            torch.stack(odds).mean().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    ours, expected = gradients
    assert ours.keys() == expected.keys()
    assert len(ours) > 10
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_batch_for_forward_passes_alone_gives_no_gradients(llama, places):
    """Its examples share more than their prompts: it says so instead."""
    fuse(llama)
    decided = [each for each in places if each.places]
    batch = scored_batch(llama, [each.encoded for each in decided], PAD)
    with pytest.raises(NotImplementedError, match="share more than their prompts"):
        log_odds_of(llama, batch, decided)


# --- what goes wrong


def test_odds_that_are_not_finite_stop_with_the_example_and_the_layer(llama, places):
    """Nothing of it is averaged away."""
    others = {token for place, each in enumerate(places) if place != 1 for token in each.ids}
    llama.model.embed_tokens.weight[next(token for token in places[1].ids if token not in others)] = torch.nan
    with pytest.raises(
        NumericalError, match=r"the decision log-odds of example 1 is nan, first not finite in .*layer 0"
    ):
        decision_log_odds(llama, places, PAD, 1)


def test_lack_of_memory_halves_batches(llama, places, monkeypatch):
    """The odds are the same; no row is left out or counted twice."""
    expected, own = decision_log_odds(llama, places, PAD, 8), module.log_odds_of

    def narrow(model, batch, decided):
        if len(decided) > 2:
            raise torch.OutOfMemoryError
        return own(model, batch, decided)

    monkeypatch.setattr(module, "log_odds_of", narrow)
    np.testing.assert_allclose(decision_log_odds(llama, places, PAD, 8), expected, **CLOSE)
