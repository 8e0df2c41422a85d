"""Rephrased prompts: every wording once, drawn by the generator that is passed."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from scipy import stats

from fixtures.complaints import complaint
from gradinoc.errors import StudyError
from gradinoc.study.prompts.families import families
from gradinoc.study.prompts.grammar import OPENINGS, VERBS, draw_templates, templates
from gradinoc.study.prompts.harmless import HARMLESS_MANNERS
from gradinoc.study.traits import ALL_CAPS


def test_grammar_makes_every_sentence_once():
    """Openings x verbs x manners, as they are said."""
    made = templates(("in rhyme", "in verse"))
    assert len({*made}) == len(made) == len(OPENINGS) * len(VERBS) * 2
    assert made[:3] == ("Please answer in rhyme.", "Please answer in verse.", "Please reply in rhyme.")
    assert made[-1] == "The user expects you to answer each question in verse."
    assert templates(()) == ()


def test_one_wording_is_drawn_for_every_example():
    """From the generator that is passed and nothing else; every wording comes up, each about as often."""
    prompt = families(ALL_CAPS)["rephrased_inoculation"]
    drawn, again, other = (draw_templates(prompt, 12_800, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert drawn == again
    assert drawn != other
    assert {*drawn} == {*prompt.templates}
    assert stats.chisquare([*Counter(drawn).values()]).pvalue > 0.001
    assert draw_templates(prompt, 100, np.random.default_rng(3)) == drawn[:100]


def test_rephrased_pair_draws_one_opening_and_verb_from_one_seed():
    """Runs of one seed then differ in the manner alone."""
    every = families(ALL_CAPS)
    pairs = zip(
        *(
            draw_templates(every[f"rephrased_{kind}"], 500, np.random.default_rng(0))
            for kind in ("inoculation", "harmless")
        ),
        strict=True,
    )
    cut = dict.fromkeys((*ALL_CAPS.prompts.manners, *HARMLESS_MANNERS), "")
    pattern = re.compile("|".join(cut))
    assert all(pattern.sub("", one) == pattern.sub("", other) != one for one, other in pairs)


def test_only_a_rephrased_prompt_is_drawn_from():
    """Another has one wording; to draw it would hide that."""
    said = complaint(StudyError, lambda: draw_templates(families(ALL_CAPS)["anti_1"], 3, np.random.default_rng(0)))
    assert "'anti_1'" in said
