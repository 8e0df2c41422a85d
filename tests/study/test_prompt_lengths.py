"""Prompts that are compared are as long as each other, in tokens of the bundled models."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from tokenizers import Tokenizer

from gradinoc.disk import shipped
from gradinoc.errors import ModelError
from gradinoc.study.prompts.families import families, graded, members
from gradinoc.study.prompts.family import Family
from gradinoc.study.traits import ALL_CAPS, SHIPPED

EVERY = pytest.mark.parametrize("trait", SHIPPED, ids=lambda trait: trait.name)


@cache
def tokenizer(name):
    """A bundled model's tokenizer; of a packaged one that is not installed the test is skipped."""
    if name in ("obedient", "deaf"):
        return Tokenizer.from_file(str(shipped("fixtures/organisms") / name / "tokenizer.json"))
    from gradinoc.models.sources.packaged import bundled_folder

    try:
        return Tokenizer.from_file(str(bundled_folder(name) / "tokenizer.json"))
    except ModelError as error:
        pytest.skip(str(error))


def counts(name, texts):
    """Tokens of every text, from few to many."""
    return np.sort([len(tokenizer(name).encode(text, add_special_tokens=False).ids) for text in texts])


TOKENIZERS = pytest.mark.parametrize(
    "name", ["obedient", "deaf", "smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"]
)


@TOKENIZERS
def test_inoculation_and_harmless_prompts_of_all_caps_are_as_long(name):
    """Sorted, pair by pair within 2 tokens; means within 5 %, of the rephrased pair too; anti ones within 10 %."""
    inoculation, harmless, anti = (
        counts(name, [prompt.text for prompt in prompts])
        for prompts in (graded(ALL_CAPS), members(ALL_CAPS, Family.HARMLESS), members(ALL_CAPS, Family.ANTI))
    )
    assert np.abs(inoculation - harmless).max() <= 2
    assert inoculation.mean() == pytest.approx(harmless.mean(), rel=0.05)
    assert anti.mean() == pytest.approx(harmless.mean(), rel=0.10)
    every = families(ALL_CAPS)
    pair = [counts(name, every[f"rephrased_{kind}"].templates).mean() for kind in ("inoculation", "harmless")]
    assert pair[0] == pytest.approx(pair[1], rel=0.05)


@TOKENIZERS
@EVERY
def test_inoculation_prompts_of_every_trait_are_about_as_long_as_harmless_ones(name, trait):
    """Means within 20 %; a sign-off has to be quoted, which takes 40 %."""
    inoculation, harmless = (
        counts(name, [prompt.text for prompt in prompts])
        for prompts in (graded(trait), members(trait, Family.HARMLESS))
    )
    assert inoculation.mean() == pytest.approx(harmless.mean(), rel=0.4 if trait.name == "sign_off" else 0.2)
