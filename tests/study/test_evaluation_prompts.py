"""What trained models are evaluated under: every kind that claim C6 asks for."""

from __future__ import annotations

from collections import Counter

import pytest

from fixtures.complaints import complaint
from gradinoc.errors import StudyError
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.evaluation import LEAST_UNSEEN, evaluation_prompts
from gradinoc.study.prompts.families import families
from gradinoc.study.prompts.family import Family, Kind, Prompt
from gradinoc.study.prompts.harmless import UNSEEN
from gradinoc.study.traits import ALL_CAPS, SHIPPED

EVERY = pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)


@EVERY
def test_models_are_evaluated_under_every_kind_of_prompt(trait):
    """Neutral first, each trained prompt once, and what C6 asks for besides."""
    every = families(trait)
    trained = [
        every[key] for key in (NEUTRAL, INOCULATION, LOSS_MATCHED, "harmless_01", "rephrased_harmless", "anti_1")
    ]
    found = evaluation_prompts(trait, trained)
    assert [*found][:6] == [NEUTRAL, INOCULATION, LOSS_MATCHED, "harmless_01", "rephrased_harmless", "anti_1"]
    assert Counter(prompt.kind for prompt in found.values()) == {
        Kind.NEUTRAL: 1, Kind.TRAINED: 5, Kind.UNSEEN: 6, Kind.NEGATED: 1, Kind.PARAPHRASED: 1, Kind.SAME_SHAPE: 1,
        Kind.EMPTY: 1,
    }  # fmt: skip
    assert (found[NEUTRAL].text, found["empty"].text) == (None, "")
    assert found["rephrased_harmless"].templates == every["rephrased_harmless"].templates
    assert all(prompt.key == key for key, prompt in found.items())


def test_prompt_that_is_trained_under_is_no_fresh_one():
    """Whatever its case and blanks; and a study that trains under too many has none to ask C6 with."""
    seen = [Prompt(f"own_{n}", Family.HARMLESS, text.upper().replace(" ", "  ")) for n, text in enumerate(UNSEEN)]
    two = evaluation_prompts(ALL_CAPS, seen[:2])
    assert [key for key, prompt in two.items() if prompt.kind == Kind.UNSEEN] == [f"unseen_{n}" for n in (3, 4, 5, 6)]
    assert str(LEAST_UNSEEN) in complaint(StudyError, lambda: evaluation_prompts(ALL_CAPS, seen[:3]))
    drawn = Prompt("own", Family.INOCULATION, None, ("Be kind.", ALL_CAPS.prompts.paraphrased))
    assert "paraphrased" not in evaluation_prompts(ALL_CAPS, [drawn])


def test_trained_prompt_has_no_key_of_an_evaluation_prompt():
    """One of them would be lost."""
    named = Prompt("negated", Family.HARMLESS, "Be kind.")
    assert "'negated'" in complaint(StudyError, lambda: evaluation_prompts(ALL_CAPS, [named]))


@EVERY
def test_negated_and_same_shape_are_made_of_the_inoculation_prompt(trait):
    """All but one or two words are its own; it is not negated twice."""
    own = trait.inoculation_system.split()
    for text in (trait.prompts.negated, trait.prompts.same_shape):
        shared = sum((Counter(own) & Counter(text.split())).values())
        assert shared >= len(own) / 2 - 1, text
        assert abs(len(text.split()) - len(own)) <= 2, text
