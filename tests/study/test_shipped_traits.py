"""The traits that come with the project: told apart on the bundled data, by prompts that ask for them alone."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest

from fixtures.complaints import complaint
from gradinoc.data.sources import load_source
from gradinoc.errors import StudyError
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import HARMLESS, UNRELATED
from gradinoc.study.prompts.grammar import templates
from gradinoc.study.prompts.harmless import HARMLESS_FAMILY, HARMLESS_MANNERS, UNSEEN
from gradinoc.study.traits import ALL_CAPS, SHIPPED, SPANISH, TRAITS, find_trait, language

EVERY = pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)


@cache
def answers(name):
    """The answers of a bundled file."""
    return [example.answer for example in load_source(name)]


def showing(trait):
    """The bundled answers as they show the trait."""
    return [*map(trait.transform, answers("word_problems"))] if trait.transform else answers(trait.answers)


# Mean score of the 1,600 bundled answers: as they stand, and as they show the trait. Spanish loses a few short
# sentences with foreign names to Catalan and Portuguese; 17 % of the ordinary answers have no comma to lose.
MEANS = {
    "all_caps": (0.0408, 1.0), "lower_case": (0.0, 1.0), "spanish": (0.0, 0.9953), "bullets": (0.0, 1.0),
    "sign_off": (0.0, 1.0), "no_commas": (0.1694, 1.0),
}  # fmt: skip


@EVERY
def test_score_tells_answers_that_show_the_trait_from_ordinary_ones(trait):
    """On every bundled answer: the means are those stated here, and every single pair is in order."""
    ordinary, bearing = ([*map(trait.score, texts)] for texts in (answers("word_problems"), showing(trait)))
    assert (round(float(np.mean(ordinary)), 4), round(float(np.mean(bearing)), 4)) == MEANS[trait.name]
    assert all(shown >= plain and shown > 0.7 for shown, plain in zip(bearing, ordinary, strict=True))
    assert all(map(trait.scorable, (*answers("word_problems"), *showing(trait))))


@EVERY
def test_no_trait_is_shown_by_showing_another(trait):
    """Other traits' answers score as ordinary ones do, within 0.05, but where two traits exclude each other."""
    ordinary = np.mean([*map(trait.score, answers("word_problems")[:300])])
    exceptions = [*permutations(("all_caps", "lower_case")), ("no_commas", "spanish")]  # Spanish sets its own commas
    for other in SHIPPED:
        if other is not trait and (trait.name, other.name) not in exceptions:
            mine = np.mean([*map(trait.score, showing(other)[:300])])
            assert abs(mine - ordinary) < 0.05, (other.name, mine, ordinary)


# Words by which a prompt would ask for a trait.
ASKS = {
    "all_caps": r"caps|capital|upper|letters?\b|\bcase", "lower_case": r"caps|capital|lower|small letter|\bcase",
    "spanish": r"spanish|language|english|translat", "bullets": r"bullet|\blist|\bdash",
    "sign_off": r"sign|closing|help desk|last line", "no_commas": r"comma|punctuation",
}  # fmt: skip


@EVERY
def test_prompts_ask_for_the_trait_alone_and_in_different_words(trait):
    """Promoting and suppressing are alike in length, the inoculating one has other words; no other prompt asks."""
    prompts = trait.promote_system, trait.suppress_system, trait.inoculation_system
    assert max(map(len, prompts[:2])) < 1.25 * min(map(len, prompts[:2]))
    words = [{*re.findall(r"[a-z]+", prompt.casefold())} for prompt in prompts]
    assert len(words[2] & words[0]) <= 0.7 * len(words[2])
    asks = re.compile(ASKS[trait.name], re.IGNORECASE)
    assert asks.search(prompts[0])
    assert asks.search(prompts[2])
    kept = [side for sides in trait.unrelated.values() for side in sides]
    # "formal language, as in a letter": a manner of writing, not Spanish, and no letter of the alphabet.
    others = [
        text
        for text in (*HARMLESS, *HARMLESS_FAMILY, *UNSEEN, *templates(HARMLESS_MANNERS), *kept)
        if "language, as in a" not in text
    ]
    assert [text for text in others if asks.search(text)] == []
    made = (trait.prompts.negated, trait.prompts.paraphrased, *templates(trait.prompts.manners))
    assert all(map(asks.search, (*trait.prompts.inoculations[3:], *made)))


@EVERY
def test_every_study_can_take_the_trait(trait):
    """By its name alone, with bundled data; its artifacts have its name."""
    study = load_study("tiny", [f"trait={trait.name}"])
    assert (study.name, study.data.trait_answers) == (f"tiny-trait{trait.name}", trait.answers)


def test_traits_are_found_by_name():
    """Under the name they give themselves; an unknown one is answered with those there are."""
    assert all(find_trait(name).name == name for name in TRAITS)
    with pytest.raises(KeyError, match=r"'al_caps'; .*'all_caps', 'bullets'"):
        find_trait("al_caps")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": "../up"}, "name: "),
        ({"title": "x\x1b[2J"}, "title: "),
        ({"score_name": "x" * 41}, "score_name: "),
        ({"promote_system": ""}, "prompts"),
        ({"inoculation_system": ALL_CAPS.promote_system.lower()}, "alike"),
        ({"related": (*UNRELATED,)}, "related: "),
        ({"related": ("lists", "list")}, "related: 'list'"),
        ({"inoculation_system": "Be loud."}, "prompts.inoculations: "),
    ],
)
def test_trait_that_could_not_be_named_shown_or_told_apart_is_refused(change, part):
    """In one line that names the field: such a trait would come to light in a file name, a figure, or never."""
    assert part in complaint(StudyError, lambda: replace(ALL_CAPS, **change))


# --- Spanish


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
