"""Where answers part: the places at which a trait is decided."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from transformers import AutoTokenizer

from fixtures.chat_families import FAMILIES, family_tokenizer
from fixtures.decided import BULLETS, LOWER_CASE, NO_COMMAS, SIGN_OFF, for_trait
from gradinoc.data.examples import Example, showing
from gradinoc.data.sources import load_source
from gradinoc.errors import ModelError
from gradinoc.measure.behaviour.decisions import decisions, only_case_differs
from gradinoc.models.chat.encoding import encode
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.study.traits import ALL_CAPS, SHIPPED, SPANISH, TraitDescription, find_trait

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
