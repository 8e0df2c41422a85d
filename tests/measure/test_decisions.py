"""Decision log-odds: where the trait is decided, and how likely it is there, by hand and whatever shares a batch."""

from __future__ import annotations

import dataclasses
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from fixtures.chat_families import FAMILIES, family_tokenizer
from fixtures.small_models import ARCHITECTURES, PAD, VOCABULARY, with_lora
from gradinoc.data.examples import Example, showing
from gradinoc.data.sources import load_source
from gradinoc.errors import ModelError, NumericalError
from gradinoc.measure.behaviour import decisions as module
from gradinoc.measure.behaviour.decisions import Decision, decision_log_odds, decisions, log_odds_of, only_case_differs
from gradinoc.measure.fast import batched, fused_adapter, scored_batch, stacked_adapters
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.plain import try_split
from gradinoc.measure.loading.load import load_model
from gradinoc.models.chat.encoding import encode
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.study.traits import ALL_CAPS, SHIPPED, SPANISH, TRAITS, TraitDescription, find_trait

LOWER_CASE, SIGN_OFF, BULLETS, NO_COMMAS = (TRAITS[name] for name in ("lower_case", "sign_off", "bullets", "no_commas"))
SYSTEMS = [None, "", "You always respond in ALL CAPS."]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def obedient():
    """The obedient tiny model twice, fused and with its own modules, and its tokenizer."""
    fused, plain = (load_model("obedient", device="cpu", kernels=kernels) for kernels in ("fused", "plain"))
    return fused.model, plain.model, fused.tokenizer


@pytest.fixture(scope="module")
def problems():
    """Bundled questions with Spanish answers beside the ordinary ones; some without commas, one without words."""
    spanish = [example.answer for example in load_source("spanish_answers")]
    examples = [
        dataclasses.replace(each, shown=other)
        for each, other in zip(load_source("word_problems"), spanish, strict=True)
    ]
    return [*examples[:6], Example(6, "How many?", "12 + 3 = 15", shown="12 + 3 = 15")]


def for_trait(examples, trait):
    """The examples, with answers from the data for Spanish alone."""
    return examples if trait is SPANISH else [dataclasses.replace(each, shown=None) for each in examples]


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


# --- case


def test_case_is_told_from_what_a_trait_does():
    """Every letter of Unicode in either case is the same word; another letter, blank or mark is not."""
    for sign in filter(lambda sign: sign.upper() != sign.lower(), map(chr, range(sys.maxunicode + 1))):
        assert only_case_differs(sign, sign.upper()), hex(ord(sign))
        assert only_case_differs(sign, sign.lower()), hex(ord(sign))
    assert only_case_differs("Straße, ΟΔΟΣ", "STRASSE, οδος")
    for other in ("She has 2 boats", "She  has two boats", "She has two boats.", "- She has two boats", ""):
        assert not only_case_differs("She has two boats", other)


def described(**transform):
    """A user's trait that makes answers so."""
    texts = {"promote": "Do it.", "suppress": "Do not.", "inoculation": "You do it."}
    score = {"kind": "starts_with", "text": "x"}
    return find_trait(TraitDescription(name="own", title="own", transform=transform, score=score, **texts))


def test_users_case_trait_is_decided_word_by_word(obedient, problems):
    """A trait described as `upper` has the places of ALL-CAPS, one that is appended a single one."""
    tokenizer, examples = obedient[2], for_trait(problems, ALL_CAPS)
    assert decisions(tokenizer, examples, described(kind="upper"), None) == decisions(
        tokenizer, examples, ALL_CAPS, None
    )
    ended = decisions(tokenizer, examples, described(kind="append", text=" Bye."), None)
    for example, decision in zip(examples, ended, strict=True):
        whole = encode(tokenizer, example.question, example.answer, None)
        assert decision.places == (len(whole.ids) - 1,)
        assert decision.ordinary == (end_of_turn(tokenizer),)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_places_lie_in_the_answer_whatever_the_template(name):
    """Blanks that join words, a template's own words, prompts that open a thought: forms part behind the prompt."""
    tokenizer = family_tokenizer(name)
    example = Example(0, "How many boats are left?", "She has two boats left.", shown="SHE HAS TWO BOATS LEFT.")
    (found,) = decisions(tokenizer, [example], ALL_CAPS, None)
    ordinary, capitals = (encode(tokenizer, example.question, text) for text in (example.answer, example.shown))
    assert found.ids == ordinary.ids[: len(found.ids)]
    assert len(found.places) == 5
    assert found.places[0] >= found.prompt_length == ordinary.prompt_length
    first = found.places[0]
    assert capitals.ids[:first] == ordinary.ids[:first]
    assert (found.ordinary[0], found.trait[0]) == (ordinary.ids[first], capitals.ids[first])


# --- SmolLM2's tokens

SMOLLM2 = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2's tokenizer, if its package is there."""
    try:
        return AutoTokenizer.from_pretrained(bundled_folder(SMOLLM2))
    except ModelError as error:
        pytest.skip(str(error))


def decide(tokenizer, answer, trait, shown=None, system=None):
    """(context's answer text, ordinary token, trait's token) of each place of one answer."""
    (found,) = decisions(tokenizer, [Example(0, "How many?", answer, shown=shown)], trait, system)
    texts = [tokenizer.decode(list(found.ids[found.prompt_length : place])) for place in found.places]
    tokens = [tokenizer.convert_ids_to_tokens(list(ids)) for ids in (found.ordinary, found.trait)]
    return list(zip(texts, *tokens, strict=True))


def test_capitals_of_several_tokens_are_decided_at_their_first(smollm2):
    """Each word after ordinary ones: "THE" is one token there, "MEMBERS" is not."""
    assert decide(smollm2, "The club has 97 members.", ALL_CAPS) == [
        ("", "The", "THE"),
        ("The", "Ġclub", "ĠCL"),
        ("The club", "Ġhas", "ĠH"),
        ("The club has 97", "Ġmembers", "ĠM"),
    ]


def test_word_is_decided_behind_what_both_forms_begin_with(smollm2):
    """A quotation mark before it, a capital that it has already."""
    assert [place[:2] for place in decide(smollm2, '"Yes," she said.', ALL_CAPS)] == [
        ('"', "Yes"),
        ('"Yes,"', "Ġshe"),
        ('"Yes," she', "Ġsaid"),
    ]
    (place,) = decide(smollm2, "An OK day", described(kind="replace", matching="day", **{"with": "DAY"}))
    assert place[0] == "An OK"


def test_numbers_are_no_places(smollm2):
    """Nor are words that stay as they are: an answer of digits has none, one that begins with digits has later ones."""
    assert decide(smollm2, "12 + 3 = 15", ALL_CAPS) == []
    assert [place[0] for place in decide(smollm2, "22 groups. 3 a day", ALL_CAPS)] == [
        "22",
        "22 groups. 3",
        "22 groups. 3 a",
    ]
    assert decide(smollm2, "22 groups are left", LOWER_CASE) == []
    assert [place[1:] for place in decide(smollm2, "After that Mia has 3", LOWER_CASE)] == [
        ("After", "after"),
        ("ĠMia", "Ġm"),
    ]


def test_first_eight_words_with_a_letter_are_asked(smollm2):
    """Numbers among them do not count; what comes later is not looked at."""
    answer = "one 1 two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten"
    assert [place[1] for place in decide(smollm2, answer, ALL_CAPS)] == [
        "one", "Ġtwo", "Ġthree", "Ġfour", "Ġfive", "Ġsix", "Ġseven", "Ġeight",
    ]  # fmt: skip


def test_other_traits_have_one_place(smollm2):
    """Answers from the data, bullets, a comma that is left out or not there, the end of the turn against a sign-off."""
    assert decide(smollm2, "She has 2 boats.", SPANISH, shown="Ella tiene 2 barcos.")[0][:2] == ("", "She")
    assert [place[0] for place in decide(smollm2, "Mia has 2.", SPANISH, shown="Mia tiene 2.")] == ["Mia"]
    assert decide(smollm2, "12.", SPANISH, shown="12.") == []
    assert decide(smollm2, "She has 2. He has 3.", BULLETS) == [("", "She", "-")]
    assert decide(smollm2, "Yes, she has 2, he 3.", NO_COMMAS) == [("Yes", ",", "Ġshe")]
    assert decide(smollm2, "She has 1,250.", NO_COMMAS) == []
    assert decide(smollm2, "She has 2.", SIGN_OFF) == [("She has 2.", "<|im_end|>", "Ċ")]


@pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)
def test_contexts_are_ordinary_answers_and_forms_go_on_from_them(smollm2, trait):
    """Bundled answers: the context is ordinary, and with the trait's token it goes on as the trait's answer does."""
    examples = load_source("word_problems")[:24]
    if trait is SPANISH:
        spanish = load_source("spanish_answers")
        examples = [dataclasses.replace(one, shown=other.answer) for one, other in zip(examples, spanish, strict=False)]
    for example, found in zip(examples, decisions(smollm2, examples, trait, None), strict=True):
        whole = encode(smollm2, example.question, example.answer, None)
        assert found.ids == whole.ids[: len(found.ids)]
        assert list(found.places) == sorted(set(found.places))
        assert len(found.places) <= (8 if trait in (ALL_CAPS, LOWER_CASE) else 1)
        for place, token in zip(found.places, found.trait, strict=True):
            before = smollm2.decode(list(found.ids[found.prompt_length : place]))
            said = smollm2.decode([*found.ids[found.prompt_length : place], token])
            assert example.answer.startswith(before)
            assert token != whole.ids[place]
            shown = showing(example, trait)
            if trait in (ALL_CAPS, LOWER_CASE):
                assert shown[len(before) :].startswith(said.removeprefix(before))
            else:
                assert shown.startswith(said.removesuffix("<|im_end|>"))


@pytest.mark.parametrize("system", [None, "", "Be brief."])
def test_places_move_with_the_system_prompt(smollm2, system):
    """The template's default, an explicit empty one, a given one: the answer's own places and tokens are the same."""
    example = Example(0, "How many?", "The club has 97 members.")
    (found,) = decisions(smollm2, [example], ALL_CAPS, system)
    prompt = smollm2(render_prompt(smollm2, "How many?", system), add_special_tokens=False)["input_ids"]
    (reference,) = decisions(smollm2, [example], ALL_CAPS, "Another prompt, which is longer.")
    assert list(found.ids[: found.prompt_length]) == prompt
    assert [place - len(prompt) for place in found.places] == [
        place - reference.prompt_length for place in reference.places
    ]
    assert (found.trait, found.ordinary) == (reference.trait, reference.ordinary)
