"""The obedient tiny model, and questions on which traits are decided."""

from __future__ import annotations

import dataclasses

import pytest

from gradinoc.data.examples import Example
from gradinoc.data.sources import load_source
from gradinoc.measure.loading.load import load_model


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
