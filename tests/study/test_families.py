"""Families of prompts: frozen, of one shape pair by pair, harmless where they say so, unlike the promoting prompt."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from fixtures.scripts import script
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import CONDITIONS, HARMLESS, INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.evaluation import untrained_prompts
from gradinoc.study.prompts.families import FROZEN, digest, families, graded, members
from gradinoc.study.prompts.family import NAME, Family, Kind, Prompt, plain
from gradinoc.study.prompts.grammar import templates
from gradinoc.study.prompts.harmless import HARMLESS_FAMILY, HARMLESS_MANNERS, UNSEEN
from gradinoc.study.traits import ALL_CAPS, SHIPPED
from gradinoc.study.traits.prompts import TraitPrompts

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)


def runs_of(text, length):
    """Every run of so many words of a text; what is quoted is left out, since a trait may have to be quoted."""
    words = re.findall(r"[a-z]+", re.sub('".*?"', "", text).casefold())
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


# --- frozen

# These prompts were fixed before any of their results was seen. A change that turns a hash is a change of what is
# claimed: it needs a new FROZEN, a word in docs/log.md on which outcomes had been seen, and docs/prompts.md anew.
GOLDEN = {
    "all_caps": "babf8c6e3fd400e4",
    "lower_case": "1cf07094088c066b",
    "spanish": "b119c8896c72b526",
    "bullets": "1b33a23b9385743d",
    "sign_off": "63c6c3ef268d4c0f",
    "no_commas": "76d61e8d71f2aef5",
}


@EVERY
def test_prompts_are_those_that_were_frozen(trait):
    """Families, rephrased wordings, evaluation prompts and the wordings of the direction, to the letter."""
    parts = [digest(families(trait).values()), digest(untrained_prompts(trait)), *map(list, trait.contrasts)]
    assert (FROZEN, hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]) == ("2026-11-28", GOLDEN[trait.name])


def test_digest_turns_with_every_part_of_a_prompt():
    """Key, family, text, templates, place and order."""
    one, other = Prompt("a", Family.HARMLESS, "x", (), 1), Prompt("b", Family.ANTI, None, ("y",))
    changed = [
        Prompt("c", Family.HARMLESS, "x", (), 1), Prompt("a", Family.ANTI, "x", (), 1),
        Prompt("a", Family.HARMLESS, "z", (), 1), Prompt("a", Family.HARMLESS, "x", ("y",), 1),
        Prompt("a", Family.HARMLESS, "x", (), 2),
    ]  # fmt: skip
    found = [digest([one, other]), digest([other, one]), digest([one]), *(digest([each, other]) for each in changed)]
    assert len({*found}) == len(found)


def test_page_lists_the_prompts_there_are():
    """docs/prompts.md is what docs/make_prompts.py writes; its study can be read."""
    made = script(ROOT / "docs" / "make_prompts.py")
    assert made.page() == made.PAGE.read_text(encoding="utf-8"), "run: python docs/make_prompts.py"
    assert all(text in made.page() for trait in SHIPPED for text in (*trait.prompts.texts, *trait.prompts.manners))


def test_examples_of_the_page_can_be_read(tmp_path):
    """The table of a study, as a file of one's own; that of a trait, in the place of a trait's."""
    page = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
    of_study, of_trait = re.findall("```toml\n(.*?)```", page, re.DOTALL)
    given = TraitPrompts.model_validate(tomllib.loads(of_trait)["prompts"])
    asking = replace(ALL_CAPS, inoculation_system="You always answer with a question.", prompts=given)
    assert {*given.given} == {*TraitPrompts.model_fields}
    assert [prompt.key for prompt in graded(asking)][2] == INOCULATION
    (tmp_path / "mine.toml").write_text(of_study, encoding="utf-8")
    study = load_study(str(tmp_path / "mine.toml"))
    assert {"tea", "rephrased_harmless"} < {*study.prompts_measured}
    assert "harmless_09" not in study.prompts_known


# --- families


@EVERY
def test_families_have_the_members_that_were_planned(trait):
    """ALL CAPS in full, other traits smaller; the plan's prompts under their conditions' names, in their families."""
    every = families(trait)
    sizes = {family: len(members(trait, family)) for family in Family}
    small = {Family.NEUTRAL: 1, Family.HINT: 2, Family.INOCULATION: 4, Family.HARMLESS: 10, Family.ANTI: 2}
    large = {**small, Family.HINT: 5, Family.INOCULATION: 5, Family.ANTI: 4}
    assert sizes == {**(large if trait is ALL_CAPS else small), Family.OTHER: 0}
    assert {key: (every[key].family, every[key].text) for key in CONDITIONS} == {
        NEUTRAL: (Family.NEUTRAL, None),
        INOCULATION: (Family.INOCULATION, trait.inoculation_system),
        LOSS_MATCHED: (Family.HARMLESS, CONDITIONS[LOSS_MATCHED]),
    }
    for family, key in ((Family.INOCULATION, "rephrased_inoculation"), (Family.HARMLESS, "rephrased_harmless")):
        assert (every[key].family, every[key].text, len(every[key].templates) >= 64) == (family, None, True)
    assert [prompt.text for prompt in members(trait, Family.HARMLESS)] == [*HARMLESS_FAMILY]


@EVERY
def test_keys_are_fit_for_files_and_show_the_order(trait):
    """Lower case; numbered by place, in which the core conditions leave a gap."""
    for key, prompt in families(trait).items():
        assert (key, bool(re.fullmatch(NAME, key))) == (prompt.key, True)
        if prompt.place and key not in CONDITIONS:
            assert int(key.rpartition("_")[2]) == prompt.place
    for prompts in (graded(trait), *(members(trait, family) for family in (Family.HARMLESS, Family.ANTI))):
        assert [prompt.place for prompt in prompts] == [*range(1, len(prompts) + 1)]


@EVERY
def test_no_two_prompts_of_a_trait_are_alike(trait):
    """Nor is one of them in the pool of harmless prompts, which a study's "matched" condition may take."""
    prompts = [*families(trait).values(), *untrained_prompts(trait)]
    texts = [text for prompt in prompts for text in prompt.texts] + [side for pair in trait.contrasts for side in pair]
    counted = Counter(map(plain, (*texts, *HARMLESS)))
    assert [text for text, times in counted.items() if times > 1] == []
    assert len({prompt.key for prompt in prompts}) == len(prompts)


@EVERY
def test_prompts_are_sentences_in_plain_ascii(trait):
    """One line, no blanks to spare, a capital first, a stop last; neutral and the empty one have no text."""
    prompts = [*families(trait).values(), *untrained_prompts(trait)]
    for text in (text for prompt in prompts for text in prompt.texts if text):
        assert text.isascii()
        assert text.isprintable()
        assert re.fullmatch(r"[A-Z]\S*( \S+)+", text), text
        assert text.endswith((".", '."', '?"')), text


@EVERY
def test_no_inoculation_prompt_is_the_promoting_prompt_reworded(trait):
    """That prompt defines the direction: no four words in a row are its own, nor most of the words."""
    promoting = trait.promote_system
    single = {word for (word,) in runs_of(promoting, 1)}
    every = [
        text
        for prompt in families(trait).values()
        if prompt.family in (Family.HINT, Family.INOCULATION)
        for text in prompt.texts
    ]
    for text in (*every, trait.prompts.paraphrased):
        words = {word for (word,) in runs_of(text, 1)}
        assert not runs_of(text, 4) & runs_of(promoting, 4), text
        assert len(words & single) <= 0.6 * len(words), text


# Words that elicit a shipped trait, or speak of what an answer looks like: case and media of capitals; languages;
# layout; closings; what makes sentences short. A harmless prompt that holds one is no control for that trait.
ELICITING = re.compile(
    r"\b(caps|capital\w*|upper|lower\w*|letters?|case|small|large|big|bold|emphas\w*|stress\w*|shout\w*|loud\w*|whisper\w*|"
    r"headlines?|titles?|posters?|banners?|telegrams?|labels?|signs?|screens?|warn\w*|urgent\w*|keyboards?|typ(e|ed|ing)|"
    r"casual\w*|informal\w*|chat\w*|texting|tweets?|spanish|english|languages?|translat\w*|foreign\w*|native|spain|"
    r"bullets?|lists?|dash\w*|points?|items?|steps?|outlin\w*|paragraphs?|prose|columns?|tables?|layouts?|lines?|"
    r"sign\w*|clos(e|es|ing)|end(s|ing)?|last|desk|help|regards|mails?|names?|greet\w*|thank\w*|polite\w*|"
    r"commas?|punctuat\w*|short\w*|brief\w*|concise\w*|simpl\w*|few\w*|terse\w*|quick\w*|direct\w*|hurry|child\w*)\b",
    re.IGNORECASE,
)


def test_harmless_prompts_elicit_no_shipped_trait():
    """None but the plan's own style guide, which asks for brevity and so for fewer commas: no_commas says so."""
    shared = (*HARMLESS_FAMILY, *UNSEEN, *templates(HARMLESS_MANNERS))
    holding = {text: ELICITING.search(text)[0] for text in shared if ELICITING.search(text)}
    assert holding == {CONDITIONS[LOSS_MATCHED]: "directly"}


@EVERY
def test_list_of_eliciting_words_knows_every_trait(trait):
    """It finds all but the faintest hints and all that asks for the opposite: it is not empty talk."""
    asking = [prompt.text for prompt in (*graded(trait), *members(trait, Family.ANTI))]
    assert all(map(ELICITING.search, asking))
    assert all(map(ELICITING.search, templates(trait.prompts.manners)))


def test_pairs_of_all_caps_have_one_shape():
    """They begin alike, and have as many sentences, clauses and about as many words."""
    pairs = zip(graded(ALL_CAPS), members(ALL_CAPS, Family.HARMLESS), strict=True)
    for one, other in pairs:
        words, marks = (
            [re.findall(pattern, each.text) for each in (one, other)] for pattern in (r"[A-Za-z]+", "[.,:;]")
        )
        assert marks[0] == marks[1]
        assert abs(len(words[0]) - len(words[1])) <= 1
        if one.place not in (4, 10):  # "Capitals are welcome ...", "Shout every answer ...": the trait comes first
            assert words[0][0] == words[1][0]


def test_families_of_a_trait_that_gives_none_are_its_own_prompt_and_what_is_shared():
    """No grades, no opposite, no rephrased pair."""
    bare = replace(ALL_CAPS, prompts=TraitPrompts())
    assert [prompt.key for prompt in members(bare, Family.INOCULATION)] == [INOCULATION]
    assert members(bare, Family.HARMLESS) == members(ALL_CAPS, Family.HARMLESS)
    assert not [key for key in families(bare) if key.startswith(("anti", "rephrased"))]
    assert {prompt.kind for prompt in untrained_prompts(bare)} == {Kind.UNSEEN, Kind.EMPTY}


def test_wordings_of_the_direction_differ_from_each_other():
    """No two share five words in a row, or the curve would be of one wording; the sides of each are about as long."""
    for trait in SHIPPED:
        assert len(trait.contrasts) == 3
        assert all(max(map(len, sides)) < 1.25 * min(map(len, sides)) for sides in trait.contrasts)
        for one, other in combinations(trait.contrasts, 2):
            assert not runs_of(one.promote, 5) & runs_of(other.promote, 5)
