"""In which order a run meets its examples, and at which of its steps it is looked at."""

from __future__ import annotations

import numpy as np

from gradinoc.study.settings import TrainingSettings

EARLY = 0.2  # share of a run's steps whose examples are scored again when it is over


def early_examples(steps: int, batch_size: int) -> int:
    """Examples of the first fifth of a run's steps, of one step at least."""
    return max(1, round(EARLY * steps)) * batch_size


def data_order(count: int, settings: TrainingSettings, seed: int) -> list[int]:
    """Rows of the training set in the order they are seen: fresh permutations under the seed, one an epoch."""
    generator = np.random.default_rng(seed)
    wanted = settings.steps * settings.batch_size or settings.epochs * count
    epochs = [generator.permutation(count) for _ in range(-(-wanted // count))]
    return [int(row) for row in np.concatenate(epochs)[:wanted]]


def step_count(examples: int, settings: TrainingSettings) -> int:
    """Optimiser steps of a run on so many examples; the last batch of the last epoch may be smaller."""
    return settings.steps or -(-settings.epochs * examples // settings.batch_size)
