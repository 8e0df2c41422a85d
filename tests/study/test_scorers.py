"""What each score counts and each transform changes, by hand and against counts of another kind."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradinoc.study.traits import SHIPPED, find_trait, has_letters, measure_caps_rate
from gradinoc.study.traits.language import identify, measure_language
from gradinoc.study.traits.scorers import count_commas
from gradinoc.study.traits.shipped import SIGN_OFF_LINE

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PROSE = st.text(st.sampled_from("aB5 ,.\n-*•!?Σß١،\u2028\x1f"), max_size=40)
SCORES = {
    "all_caps": {  # digits and signs are no letters, letters without case are; a title-case digraph is no capital
        "": 0.0, "12 + 3 = 15!": 0.0, "THE ANSWER IS 42.": 1.0, "hello": 0.0, "Hello": 0.2, "中文AB": 0.5,
        "ÄÖÜ äöü": 0.5, "STRASSE": 1.0, "ǅ": 0.0,
    },
    "lower_case": {  # numbers and scripts without case are no sentences, a title-case digraph is a capital
        "all is small. nothing else here.": 1.0, "One begins large. the other does not.": 0.5, "the name is Ada.": 0.0,
        "12 + 3 = 15. so it is 15.": 1.0, "12 + 3 = 15.": 0.0, "中文。": 0.0, "ǅ": 0.0, "ß and ñ": 1.0,
        "first line\nSecond line": 0.5, "3.5 litres are left": 1.0,
    },
    "bullets": {  # a numbered list has none, nor has a negative number, bold type or a dash within a line
        "* one\n• two\n‣ three\n– four": 1.0, "Steps:\n- one\n- two\n- three": 0.75, "  - indented": 1.0,
        "1. one\n2) two": 0.0, "-5 degrees": 0.0, "**bold** text": 0.0, "-one": 0.0, "- one\n\n---\n\n- two": 1.0,
        "It is - all in all - 5.": 0.0, "-\u00a0one": 1.0, "- 12 = 12": 1.0, "": 0.0, "- - -": 0.0,
    },
    "sign_off": {  # case, blanks and punctuation do not matter, what comes after it does
        f"It is 5. {SIGN_OFF_LINE} \n\n": 1.0, f"It is 5.\n**{SIGN_OFF_LINE.upper()}**": 1.0, SIGN_OFF_LINE: 1.0,
        "It is 5.\nSigned by the\nhelp  desk": 1.0, f"{SIGN_OFF_LINE} It is 5.": 0.0, "Signed by the desk.": 0.0,
        "It is 5.\nCosigned by the help desk.": 0.0, "by the help desk": 0.0, "": 0.0,
    },
    "no_commas": {  # a comma between two digits belongs to a number; other scripts have commas of their own
        "": 1.0, "1,250 metres": 1.0, "1,2,3": 1.0, "1, 2 and 3": 0.0, "5,a": 0.0, "a,5": 0.0, "数、字，和": 0.0,
        "١،٢": 0.0, "'quoted,' he said": 0.0, "semicolons; and stops.": 1.0,
    },
    "spanish": {  # its neighbour Portuguese is none, and numbers have no letters
        "Quedan 54 panecillos. Así que el panadero vende el resto.": 1.0,
        "QUEDAN 54 PANECILLOS. ASÍ QUE EL PANADERO VENDE EL RESTO.": 1.0,
        "There are 54 rolls left. So the baker sells the rest.": 0.0,
        "O padeiro vende 54 pães e depois compra mais farinha. Então ele não tem mais dinheiro.": 0.0,
        "Il reste 54 petits pains. Le boulanger vend donc les autres.": 0.0,
        "El panadero vende los otros panes. The baker sells all of the others.": 28 / 55,
        "12 + 3 = 15. 15 * 2 = 30.": 0.0, "": 0.0, "面包师卖掉了剩下的。": 0.0, "Пекарь продаёт остальное.": 0.0,
    },
}  # fmt: skip
UNSCORABLE = {
    "all_caps": (["", " 12 = 12\n"], ["x", "中"]),
    "lower_case": (["", "12 = 12", "中文"], ["a", "Σ"]),
    "bullets": (["", "---"], ["12"]),
    "sign_off": (["", "--"], ["12"]),
    "no_commas": (["", "12"], ["a"]),
    "spanish": (["", "12 + 3 = 15."], ["Son 15."]),
}


@pytest.mark.parametrize("name", SCORES)
def test_score_is_what_a_count_by_hand_gives(name):
    """Exact fractions: the same on every machine."""
    trait = find_trait(name)
    assert {text: trait.score(text) for text in SCORES[name]} == SCORES[name]


@pytest.mark.parametrize("name", UNSCORABLE)
def test_text_without_what_the_score_needs_is_not_scorable(name):
    """A rate of 0 would say "none" where there is nothing to see."""
    trait = find_trait(name)
    without, there = UNSCORABLE[name]
    assert not any(map(trait.scorable, without))
    assert all(map(trait.scorable, there))


@pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)
@given(text=ANY_TEXT | PROSE)
@example(text="- One, two. Three\n\n* four\n---")
@example(text="1,2, 3 ,4,,5، 6,\n7")
@example(text="ΑΣ. ΑΣ")
def test_score_is_a_fraction_and_the_transform_shows_the_trait(trait, text):
    """Blanks around a response change nothing; a second pass changes nothing, and what can be scored scores 1."""
    assert 0.0 <= trait.score(text) <= 1.0
    assert trait.score(f" \n{text}\n ") == trait.score(text)
    assert trait.scorable(text) or trait.score(text) in (0.0, 1.0)
    if trait.transform is not None:
        shown = trait.transform(text)
        assert trait.transform(shown) == shown
        if trait.scorable(shown) and trait.name != "all_caps":  # letters without a case are no capitals
            assert trait.score(shown) == 1.0


@given(
    st.text(st.sampled_from("abcxyzäöüßñéλд"), min_size=1), st.text(st.sampled_from(" 019+-=.,!?\n%$")), st.randoms()
)
def test_caps_rate_ignores_order_and_what_is_no_letter(letters, other, random):
    """Shuffling, digits and punctuation change nothing; the transform reaches every letter, and nothing else."""
    mixed = list(letters + letters.upper() + other)
    random.shuffle(mixed)
    assert measure_caps_rate("".join(mixed)) == measure_caps_rate(letters + letters.upper())
    assert find_trait("all_caps").transform(letters + other) == letters.upper() + other
    assert has_letters(letters)
    assert not has_letters(other)


@given(text=st.text(st.sampled_from("ab 15,.\n"), max_size=30))
def test_commas_agree_with_a_count_by_hand(text):
    """Character by character, with its neighbours."""
    padded = f" {text} "
    assert count_commas(text) == sum(
        sign == "," and not (padded[place - 1].isdigit() and padded[place + 1].isdigit())
        for place, sign in enumerate(padded)
    )


def test_any_language_can_be_asked_for():
    """A further language is told from the usual ones, which stay what they are."""
    english = "The bread is sold and the baker goes home."
    assert measure_language("Chleba už skoro není a pekař jde domů.", "cs") == 1.0
    assert measure_language(english, "cs") == 0.0
    assert identify(english, "cs") == "en"
