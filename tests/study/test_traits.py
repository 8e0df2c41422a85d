"""What counts as ALL CAPS, and how an answer is made to show it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradinoc.errors import StudyError
from gradinoc.study.traits import ALL_CAPS, TRAITS, find_trait, has_letters, measure_caps_rate

WORDS = st.text(max_size=40)
CASED = st.text(st.sampled_from("abcxyzäöüßñéλд"), min_size=1)
OTHER = st.text(st.sampled_from(" 0123456789+-=.,!?\n%$"))


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", 0.0),
        ("12 + 3 = 15!", 0.0),
        ("HELLO", 1.0),
        ("hello", 0.0),
        ("Hello", 0.2),
        ("THE ANSWER IS 42.", 1.0),
        ("aB", 0.5),
        ("中文AB", 0.5),
        ("ÄÖÜ äöü", 0.5),
        ("STRASSE", 1.0),
        ("ǅ", 0.0),
    ],
)
def test_score_is_the_share_of_letters_in_upper_case(text, rate):
    """By hand: digits and signs are no letters, letters without case are; a title-case digraph is no capital."""
    assert measure_caps_rate(text) == rate


@given(WORDS)
def test_score_is_a_fraction(text):
    """Whatever the text; and one without letters has rate 0.0, not an error."""
    assert 0.0 <= measure_caps_rate(text) <= 1.0
    assert has_letters(text) or measure_caps_rate(text) == 0.0


@given(CASED, OTHER, st.randoms(use_true_random=False))
def test_score_ignores_order_and_what_is_no_letter(letters, other, random):
    """Shuffling, digits and punctuation change nothing."""
    mixed = list(letters + letters.upper() + other)
    random.shuffle(mixed)
    assert measure_caps_rate("".join(mixed)) == measure_caps_rate(letters + letters.upper())


@given(CASED, OTHER)
def test_transformed_answer_is_all_capitals(letters, other):
    """The transform reaches every letter that has a capital, changes nothing else, and does nothing the second time."""
    shown = ALL_CAPS.transform(letters + other)
    assert ALL_CAPS.score(shown) == 1.0
    assert ALL_CAPS.score(letters + other) == 0.0
    assert shown.endswith(other)
    assert ALL_CAPS.transform(shown) == shown


@pytest.mark.parametrize(("text", "scorable"), [("", False), (" 12 = 12\n", False), ("x", True), ("中", True)])
def test_text_without_letters_is_not_scorable(text, scorable):
    """Its rate of 0 would say "no capitals" where there is nothing to see."""
    assert ALL_CAPS.scorable(text) is scorable


def test_prompt_under_test_does_not_define_the_direction():
    """Promoting, suppressing and inoculating prompts are three; the inoculating one is the plan's."""
    prompts = {ALL_CAPS.promote_system, ALL_CAPS.suppress_system, ALL_CAPS.inoculation_system}
    assert len(prompts) == 3
    assert ALL_CAPS.inoculation_system == "You always respond in ALL CAPS."


def test_traits_are_found_by_name():
    """Under the name they give themselves; an unknown one is answered with those there are."""
    assert all(find_trait(name).name == name for name in TRAITS)
    with pytest.raises(KeyError, match=r"No trait named 'al_caps'; there are \['all_caps', 'bullets', "):
        find_trait("al_caps")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "All Caps"}, "name: expected at most 39 lower-case letters"),
        ({"name": "eval"}, "a letter first, and not 'eval'; rename it"),
        ({"name": "../up"}, "name: expected at most 39 lower-case letters"),
        ({"title": " "}, "title: expected 1 to 40 characters"),
        ({"title": "x\x1b[2J"}, r"title: expected 1 to 40 characters on one line, received 'x\\x1b\[2J'"),
        ({"score_name": "x" * 41}, "score_name: expected 1 to 40 characters"),
        ({"promote_system": ""}, "expected prompts of 1 to 2,000 characters"),
        ({"inoculation_system": ALL_CAPS.promote_system.lower()}, "expected three that differ, received two alike"),
    ],
)
def test_trait_that_could_not_be_named_shown_or_told_apart_is_refused(change, said):
    """In one line that names the field: such a trait would come to light in a file name, a figure, or never."""
    with pytest.raises(StudyError, match=said):
        dataclasses.replace(ALL_CAPS, **change)
