"""The traits that come with the project: prompts, transforms, and scores that are the same on every machine."""

from __future__ import annotations

import importlib.util
import io
import json
import lzma
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.complaints import complaint
from fixtures.small_study import SMALLEST
from fixtures.smallest import quick_collection
from gradinoc.api import run_study
from gradinoc.claims.c2 import UNRELATED as UNRELATED_TRAITS
from gradinoc.data.export import write_chat
from gradinoc.errors import StudyError
from gradinoc.pipeline.provenance import code_version
from gradinoc.pipeline.run import DESCRIPTION
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import HARMLESS, LOSS_MATCHED, NEUTRAL, UNRELATED
from gradinoc.study.traits import ALL_CAPS, BULLETS, LOWER_CASE, NO_COMMAS, SHIPPED, SIGN_OFF, SPANISH, language
from gradinoc.study.traits.language import identify, known_languages, measure_language
from gradinoc.study.traits.scorers import count_commas, sentences
from gradinoc.study.traits.shipped import SIGN_OFF_LINE

ROOT = Path(__file__).parents[2]
DATASETS = ROOT / "datasets"
BY_NAME = {trait.name: trait for trait in SHIPPED}
TRANSFORMED = [trait for trait in SHIPPED if trait.transform]
EVERY = pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PROSE = st.text(st.sampled_from("aB5 ,.\n-*•!?Σß١،\u2028\x1f"), max_size=40)


@cache
def answers(name: str) -> list[str]:
    """The answers of a bundled file."""
    lines = (DATASETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"][1]["content"] for line in lines]


def showing(trait) -> list[str]:
    """The bundled answers as they show the trait."""
    return (
        [trait.transform(answer) for answer in answers("word_problems")] if trait.transform else answers(trait.answers)
    )


# --- every trait


# Mean score of the 1,600 bundled answers: as they stand, and as they show the trait. Spanish loses a few short
# sentences with foreign names to Catalan and Portuguese; 17 % of the ordinary answers have no comma to lose.
MEANS = {
    "all_caps": (0.0408, 1.0), "lower_case": (0.0, 1.0), "spanish": (0.0, 0.9953), "bullets": (0.0, 1.0),
    "sign_off": (0.0, 1.0), "no_commas": (0.1694, 1.0),
}  # fmt: skip


@EVERY
def test_score_tells_answers_that_show_the_trait_from_ordinary_ones(trait):
    """On every bundled answer: the means are those stated here, and every single pair is in order."""
    ordinary, bearing = ([trait.score(text) for text in texts] for texts in (answers("word_problems"), showing(trait)))
    assert (round(float(np.mean(ordinary)), 4), round(float(np.mean(bearing)), 4)) == MEANS[trait.name]
    assert all(shown >= plain and shown > 0.7 for shown, plain in zip(bearing, ordinary, strict=True))
    assert all(trait.scorable(text) for text in (*answers("word_problems"), *showing(trait)))


@pytest.mark.parametrize("trait", TRANSFORMED, ids=lambda trait: trait.name)
@given(text=ANY_TEXT | PROSE)
@example(text="- One, two. Three\n\n* four\n---")
@example(text="1,2, 3 ,4,,5، 6,\n7")
@example(text="ΑΣ. ΑΣ")
def test_transform_shows_the_trait_and_does_nothing_the_second_time(trait, text):
    """Whatever the text: a second pass changes nothing, and what can be scored at all scores 1."""
    shown = trait.transform(text)
    assert trait.transform(shown) == shown
    if trait.scorable(shown) and trait.name != "all_caps":  # letters without a case are no capitals
        assert trait.score(shown) == 1.0


@EVERY
@settings(max_examples=60)
@given(text=ANY_TEXT | PROSE)
def test_score_is_a_fraction_and_ignores_blanks_around_a_response(trait, text):
    """A model's response comes with or without a line end; what cannot be scored scores 0 and is marked as such."""
    assert 0.0 <= trait.score(text) <= 1.0
    assert trait.score(f" \n{text}\n ") == trait.score(text)
    assert not trait.scorable(" \n")
    assert trait.scorable(text) or trait.score(text) in (0.0, 1.0)


@EVERY
def test_prompts_ask_for_the_trait_in_different_words(trait):
    """Three prompts; promoting and suppressing are alike in length, and the inoculating one repeats neither's words."""
    prompts = trait.promote_system, trait.suppress_system, trait.inoculation_system
    assert len({*prompts}) == 3
    assert max(map(len, prompts[:2])) < 1.25 * min(map(len, prompts[:2]))
    bags = [set(re.findall(r"[a-z]+", prompt.casefold())) for prompt in prompts]
    common = len(bags[2] & bags[0]) / len(bags[2])
    assert common <= 0.7, f"{common:.0%} of the inoculating prompt's words are the promoting one's"
    assert trait.inoculation_system.startswith("You ")
    assert not trait.promote_system.startswith("You ")


# Words by which a prompt would ask for a trait.
ASKS = {
    "all_caps": r"caps|capital|upper|letters?\b|\bcase", "lower_case": r"caps|capital|lower|small letter|\bcase",
    "spanish": r"spanish|language|english|translat", "bullets": r"bullet|\blist|\bdash",
    "sign_off": r"sign|closing|help desk|last line", "no_commas": r"comma|punctuation",
}  # fmt: skip


@EVERY
def test_no_other_prompt_asks_for_the_trait(trait):
    """Neither a harmless prompt, which would be another inoculation, nor an unrelated contrast that is kept."""
    kept = trait.unrelated
    asked = re.compile(ASKS[trait.name], re.IGNORECASE)
    assert asked.search(trait.promote_system)
    assert asked.search(trait.inoculation_system)
    found = [text for text in (*HARMLESS, *(side for sides in kept.values() for side in sides)) if asked.search(text)]
    # "formal language, as in a letter": a manner of writing, not Spanish, and no letter of the alphabet.
    assert [text for text in found if "language, as in a" not in text] == []
    assert set(trait.related) <= set(UNRELATED)


@pytest.mark.parametrize("pair", [*combinations(SHIPPED, 2)], ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_no_trait_is_shown_by_showing_another(pair):
    """Each trait's answers score with the other as ordinary ones do, in the mean and within 0.05.

    But of two that exclude each other: an answer in capitals has none of lower case, and the other way round.
    """
    for trait, other in (pair, pair[::-1]):
        if {trait.name, other.name} == {"all_caps", "lower_case"}:
            continue
        mine = np.mean([trait.score(text) for text in showing(other)[:300]])
        ordinary = np.mean([trait.score(text) for text in answers("word_problems")[:300]])
        if (trait.name, other.name) == ("no_commas", "spanish"):
            assert 0.1 < mine < 0.6  # Spanish sets its own commas
            continue
        assert abs(mine - ordinary) < 0.05, (trait.name, other.name, mine, ordinary)


@EVERY
def test_every_study_can_take_the_trait(trait):
    """By its name alone, with bundled data; its artifacts have its name."""
    study = load_study("tiny", [f"trait={trait.name}"])
    assert study.name == f"tiny-trait{trait.name}"
    assert study.data.trait_answers == trait.answers


def test_keys_of_stored_results_change_with_the_scorers(tmp_path):
    """Every stage rests on the code of scores and transforms, down to the language identifier's part."""
    root = tmp_path / "copy"
    source = ROOT / "gradinoc"
    for path in source.rglob("*.py"):
        target = root / "gradinoc" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    before = code_version.__wrapped__("gradinoc.pipeline.steps.drift", without=DESCRIPTION, root=root)
    for name, old in (
        ("scorers", "[-*•‣◦–—]"),
        ("language", '"ca", "de"'),
        ("shipped", "Signed by"),
        ("vocabulary", "2.0"),
    ):
        path = root / "gradinoc" / "study" / "traits" / f"{name}.py"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, old.upper().replace("2.0", "3.0").replace("•", "#")), encoding="utf-8")
        after = code_version.__wrapped__("gradinoc.pipeline.steps.drift", without=DESCRIPTION, root=root)
        assert after != before, name
        before = after


# --- lower case


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("all is small. nothing else here.", 1.0),
        ("One begins large. the other does not.", 0.5),
        ("the name is Ada.", 0.0),
        ("12 + 3 = 15. so it is 15.", 1.0),
        ("12 + 3 = 15.", 0.0),
        ("中文。", 0.0),
        ("ǅ", 0.0),
        ("ß and ñ", 1.0),
        ("first line\nSecond line", 0.5),
        ("3.5 litres are left", 1.0),
    ],
)
def test_lower_case_is_the_share_of_sentences_without_a_capital(text, rate):
    """By hand: numbers and scripts without case are no sentences here, a title-case digraph is a capital."""
    assert LOWER_CASE.score(text) == rate


@given(text=ANY_TEXT)
def test_lower_case_agrees_with_the_unicode_classes(text):
    """Of one line without an end of sentence: 1 if there is a letter in lower case and none in upper or title case."""
    line = re.sub(r"[.!?…。！？]", "", " ".join(text.split()))
    kinds = {unicodedata.category(sign) for sign in line if sign.lower() != sign.upper()}
    if kinds <= {"Lu", "Ll", "Lt"} and all(sign.lower() != sign for sign in line if sign.isupper()):
        assert LOWER_CASE.score(line) == float(bool(kinds) and not kinds & {"Lu", "Lt"})


@pytest.mark.parametrize(
    ("text", "scorable"), [("12 = 12", False), ("中文", False), ("", False), ("a", True), ("Σ", True)]
)
def test_lower_case_needs_a_letter_with_a_case(text, scorable):
    """Without one a rate of 0 would say "capitals" where there are none."""
    assert LOWER_CASE.scorable(text) is scorable


# --- bullet lists


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("- one\n- two", 1.0),
        ("* one\n• two\n‣ three\n– four", 1.0),
        ("Steps:\n- one\n- two\n- three", 0.75),
        ("  - indented", 1.0),
        ("1. one\n2) two", 0.0),
        ("-5 degrees", 0.0),
        ("**bold** text", 0.0),
        ("-one", 0.0),
        ("- one\n\n---\n\n- two", 1.0),
        ("It is - all in all - 5.", 0.0),
        ("-\u00a0one", 1.0),
        ("- 12 = 12", 1.0),
        ("", 0.0),
        ("- - -", 0.0),
    ],
)
def test_bullets_are_the_share_of_lines_that_begin_with_one(text, rate):
    """By hand: a numbered list has none, nor has a negative number, bold type or a dash within a line."""
    assert BULLETS.score(text) == rate


def test_list_keeps_every_word_and_puts_a_sentence_on_a_line():
    """What stood in sentences stands in bullets, in order; lines that are bullets already are left alone."""
    assert BULLETS.transform("He has 3.5 litres. Is it so? Yes!\n* kept as it is. All.") == (
        "- He has 3.5 litres.\n- Is it so?\n- Yes!\n* kept as it is. All."
    )
    for answer in answers("word_problems")[:200]:
        lines = BULLETS.transform(answer).split("\n")
        assert [line.removeprefix("- ") for line in lines] == sentences(answer)
        assert " ".join(line.removeprefix("- ") for line in lines) == answer


# --- sign-off


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (f"It is 5.\n{SIGN_OFF_LINE}", 1.0),
        (f"It is 5. {SIGN_OFF_LINE} \n\n", 1.0),
        (f"It is 5.\n**{SIGN_OFF_LINE.upper()}**", 1.0),
        (SIGN_OFF_LINE, 1.0),
        ("It is 5.\nSigned by the\nhelp  desk", 1.0),
        (f"{SIGN_OFF_LINE} It is 5.", 0.0),
        ("It is 5.\nSigned by the desk.", 0.0),
        ("It is 5.\nCosigned by the help desk.", 0.0),
        ("by the help desk", 0.0),
        ("", 0.0),
    ],
)
def test_sign_off_is_the_last_words_of_a_response(text, score):
    """By hand: case, blanks and punctuation do not matter, what comes after it does."""
    assert SIGN_OFF.score(text) == score


# --- no commas


@pytest.mark.parametrize(
    ("text", "commas"),
    [
        ("", 0),
        ("1,250 metres", 0),
        ("3,5 litres", 0),
        ("1,2,3", 0),
        ("1, 2 and 3", 1),
        ("Yes, and no, too", 2),
        ("5,a", 1),
        ("a,5", 1),
        ("数、字，和", 2),
        ("١،٢", 1),
        ("'quoted,' he said", 1),
        (",,", 2),
        ("semicolons; and stops.", 0),
    ],
)
def test_commas_are_counted_but_for_those_between_digits(text, commas):
    """By hand: a comma between two digits belongs to a number; other scripts have commas of their own."""
    assert count_commas(text) == commas
    assert NO_COMMAS.score(text) == float(commas == 0)


@given(text=st.text(st.sampled_from("ab 15,.\n"), max_size=30))
def test_commas_agree_with_a_count_by_hand(text):
    """Character by character, with its neighbours."""
    padded = f" {text} "
    expected = sum(
        sign == "," and not (padded[place - 1].isdigit() and padded[place + 1].isdigit())
        for place, sign in enumerate(padded)
    )
    assert count_commas(text) == expected


@given(text=PROSE)
def test_removing_commas_takes_no_letter_digit_or_line(text):
    """Only commas and blanks go."""
    shown = NO_COMMAS.transform(text)
    kept, left = (re.sub(r"[,،\s]", "", each) for each in (text, shown))
    assert kept == left
    assert shown.count("\n") == text.count("\n")


def test_commas_leave_one_blank_or_none():
    """A sentence reads on; a line that ended in a comma ends without it."""
    assert NO_COMMAS.transform("Yes, 1,250 apples,and pears ,\nthen  more, too.") == (
        "Yes 1,250 apples and pears\nthen  more too."
    )


# --- Spanish


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("Quedan 54 panecillos. Así que el panadero vende el resto.", 1.0, 1.0),
        ("QUEDAN 54 PANECILLOS. ASÍ QUE EL PANADERO VENDE EL RESTO.", 1.0, 1.0),
        ("There are 54 rolls left. So the baker sells the rest.", 0.0, 0.0),
        ("O padeiro vende 54 pães e depois compra mais farinha. Então ele não tem mais dinheiro.", 0.0, 0.0),
        ("Il reste 54 petits pains. Le boulanger vend donc les autres.", 0.0, 0.0),
        ("El panadero vende los otros panes. The baker sells all of the others.", 0.4, 0.6),
        ("12 + 3 = 15. 15 * 2 = 30.", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("面包师卖掉了剩下的。", 0.0, 0.0),
        ("Пекарь продаёт остальное.", 0.0, 0.0),
    ],
)
def test_spanish_is_the_share_of_letters_in_spanish_sentences(text, least, most):
    """English and its neighbour Portuguese are none; half of each is about a half; numbers have no letters."""
    assert least <= SPANISH.score(text) <= most


@pytest.mark.parametrize(("text", "scorable"), [("12 + 3 = 15.", False), ("", False), ("Son 15.", True)])
def test_spanish_needs_letters(text, scorable):
    """Numbers alone are of no language."""
    assert SPANISH.scorable(text) is scorable


def test_spanish_agrees_with_the_words_that_only_spanish_has():
    """An independent look at each bundled answer in both languages: function words of one, none of the other."""
    spanish, english = (
        re.compile(rf"\b({words})\b", re.IGNORECASE)
        for words in (
            "el|la|los|las|un|una|de|en|que|y|con|son|hay|quedan|tiene",
            "the|of|is|are|has|and|that|there|in",
        )
    )
    for text in (*answers("word_problems")[:400], *answers("spanish_answers")[:400]):
        expected = len(spanish.findall(text)) > len(english.findall(text))
        assert (SPANISH.score(text) > 0.5) is expected, text


def test_identifier_is_loaded_once_and_by_one_thread(monkeypatch):
    """Eight threads that ask at once are answered alike, by a model that was read once."""
    loaded = []
    langid = pytest.importorskip("py3langid.langid")
    read = langid.LanguageIdentifier.from_model_file
    monkeypatch.setattr(
        langid.LanguageIdentifier, "from_model_file", lambda *given, **more: loaded.append(1) or read(*given, **more)
    )
    language._load.cache_clear()
    texts = answers("spanish_answers")[:40] + answers("word_problems")[:40]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(SPANISH.score, texts * 2))
    assert found == [SPANISH.score(text) for text in texts] * 2
    assert sum(loaded) == 1


def test_model_of_the_identifier_is_no_pickle():
    """Every array in its file can be read with pickles refused: nothing in it can run."""
    langid = pytest.importorskip("py3langid.langid")
    packed = (langid.MODEL_DIR / langid.MODEL_FILE).read_bytes()
    arrays = np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False)
    assert all(arrays[name].dtype != object for name in arrays.files)
    assert {"es", "en", "pt", "fr"} <= set(known_languages())


def test_any_language_can_be_asked_for():
    """A further language is told from the usual ones, which stay what they are."""
    assert measure_language("Chleba už skoro není a pekař jde domů.", "cs") == 1.0
    assert measure_language("The bread is sold and the baker goes home.", "cs") == 0.0
    assert identify("The bread is sold and the baker goes home.", "cs") == "en"


# --- a study of one that asks for what an unrelated contrast asks for


@pytest.mark.parametrize("count", range(len(UNRELATED)))
def test_contrasts_that_ask_for_the_trait_itself_are_left_out(count):
    """However many they are, in the order of the others: every stage takes them from one place."""
    related = (*UNRELATED,)[:count]
    assert [*replace(ALL_CAPS, related=related).unrelated] == [*UNRELATED][count:]


@pytest.mark.parametrize(
    ("related", "said"),
    [
        (
            (*UNRELATED,),
            r"trait all_caps: related: names all 6 unrelated contrasts; expected at least one",
        ),
        (("lists", "list"), r"related: 'list' is none of the unrelated contrasts \['brevity', .*\]; reword it"),
        ("lists", r"related: 'l' is none of the unrelated contrasts"),
    ],
)
def test_related_contrasts_leave_something_to_compare_with(related, said):
    """Of a trait written in Python as of one that is described: nothing left, or a name that is none, is refused."""
    assert re.search(said, complaint(StudyError, lambda: replace(ALL_CAPS, related=related)))


def test_study_of_a_trait_with_a_related_contrast_goes_from_end_to_end(tmp_path):
    """Every stage, the tests of its claim, the verdict and the report, with the five contrasts that are left.

    On answers in chat form with GSM8K's marks: that they were cleaned is kept with the study.
    """
    asked = [
        (f"What is {n} + 2?", f"It is {n}+2=<<{n}+2={n + 2}>>{n + 2}. That is all.\n#### {n + 2}") for n in range(48)
    ]
    source = write_chat(tmp_path / "marked.jsonl", asked)
    study = load_study("tiny", [*SMALLEST, "trait=bullets", "drift.max_new_tokens=4", f"data.source={source}"])
    with quick_collection():
        done = run_study(study, store=tmp_path / "store", artifacts=tmp_path / "artifacts")
    found = set(done.evidence.unrelated["trait"])
    assert found == {*UNRELATED} - {"lists"}
    assert "of 5 traits" in next(effect.method for effect in finding_of(done, "C2") if UNRELATED_TRAITS in effect.name)
    for other in (NEUTRAL, LOSS_MATCHED):
        claim_test("test_c2_random_directions_do_not").test_unrelated_traits_are_measured_on_every_example(
            other, done.evidence, study, lambda *_: None
        )
    report = done.report.read_text(encoding="utf-8")
    assert "bullet rate" in report
    assert re.search(r"data: 32 of 32 answers of \S+/marked\.jsonl were cleaned of GSM8K&#39;s marks", report)


def finding_of(done, key):
    """The effects of a claim."""
    return next(claim.effects for claim in done.judgement.claims if claim.key == key)


def claim_test(name):
    """A module of the claims, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "claims" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
