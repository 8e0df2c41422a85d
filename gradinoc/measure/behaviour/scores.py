"""Trait scores of responses: of one, and the expected score of a question's samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradinoc.data.examples import Example
from gradinoc.study.traits import Trait


def score_of(trait: Trait, response: str) -> float:
    """The trait's score of a response, a fraction in [0, 1]; NaN where it cannot be scored."""
    return trait.score(response) if trait.scorable(response) else np.nan


def scored_samples(responses: Sequence[Sequence[str]], examples: Sequence[Example], trait: Trait) -> pd.DataFrame:
    """Columns example, sample, score, group of sampled responses `[questions][samples]`; NaN for one that has none."""
    rows = [
        (number, sample, score_of(trait, text), example.group)
        for number, (example, own) in enumerate(zip(examples, responses, strict=True))
        for sample, text in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["example", "sample", "score", "group"])


def expected_scores(responses: Sequence[Sequence[Sequence[str]]], trait: Trait) -> NDArray[np.float64]:
    """Mean score of a question's samples `[copies, questions]`, of those that can be scored; NaN where none can.

    Args:
        responses: `[copies][questions][samples]`, as `sample_copies` gives them, as many samples of each.
    """
    scores = np.array([[[score_of(trait, text) for text in samples] for samples in own] for own in responses])
    counts = np.isfinite(scores).sum(-1)
    return np.where(counts, np.nansum(scores, -1) / np.maximum(counts, 1), np.nan)
