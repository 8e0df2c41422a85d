"""The step that compares at equal loss by training: a neutral run's checkpoint whose loss is inoculation's first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gradinoc.measure.alignment import answer_losses, measure_alignments
from gradinoc.measure.training.run import spaced_steps, step_count
from gradinoc.pipeline.context import Bench, Tell, adapted, trait_directions
from gradinoc.pipeline.steps.training import adapter_after
from gradinoc.pipeline.store import load_table, save_table
from gradinoc.study.prompts import NEUTRAL

BATCH = 8  # examples a pass


@dataclass(frozen=True)
class Sources:
    """Folders of the steps that this one builds on."""

    directions: Path
    neutral: Path  # the frozen model's gradients
    inoculation: Path
    run: Path


def nearest(steps: Sequence[int], loss: Callable[[int], float], target: float) -> dict[int, float]:
    """Loss by step for the steps that were looked at, the two on either side of `target` among them.

    `steps` ascend and `loss` falls along them, nearly; few are looked at: ever longer strides from the first, since the
    target is near it, then bisection.
    """
    seen: dict[int, float] = {}

    def look(step: int) -> float:
        return seen.setdefault(step, loss(step)) if step not in seen else seen[step]

    low, high, last = 0, 1, len(steps) - 1
    look(steps[low])
    while look(steps[high]) > target and high < last:
        low, high = high, min(max(high + 1, 2 * high - 2), last)  # 1, 2, 3, 4, 6, 10, ...
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if look(steps[middle]) > target else (low, middle)
    return seen


def compute(bench: Bench, seed: int, sources: Sources, folder: Path, tell: Tell) -> None:
    """Write the alignments of that checkpoint of a neutral run whose loss is nearest inoculation's on the base model.

    Loss and alignment are those of the measured examples under the neutral prompt; the base model and the finished run
    count as checkpoints.
    """
    total = step_count(bench.study.data.train, bench.study.training)
    steps = [0, *spaced_steps(total), total]
    examples = bench.encoded(bench.splits.measure, bench.system(NEUTRAL))
    base = bench.language_model.model

    def adapter(step: int) -> Path | None:
        if step == 0:
            return None
        return sources.run / "adapter" if step == total else adapter_after(sources.run, step)

    def loss(step: int) -> float:
        tell(f"loss after {step} steps")
        if step == 0:
            return _mean_loss(sources.neutral)
        with adapted(base, adapter(step)) as model:
            return float(answer_losses(model, examples, bench.pad, BATCH).mean())

    target = _mean_loss(sources.inoculation)
    seen = nearest(steps, loss, target)
    chosen = min(seen, key=lambda step: abs(seen[step] - target))
    directions = {layer: direction[None] for layer, direction in trait_directions(sources.directions).items()}
    with adapted(base, adapter(chosen)) as model:
        found = measure_alignments(
            model,
            examples,
            directions,
            bench.pad,
            BATCH,
            lambda done, count: tell("gradients of example", done, count),
        )
    rows = [
        {"seed": seed, "step": step, "loss": value, "target": target, "chosen": step == chosen}
        for step, value in sorted(seen.items())
    ]
    save_table(found.table.assign(seed=seed, step=chosen), folder / "matched.parquet")
    save_table(pd.DataFrame(rows), folder / "matched_steps.parquet")


def _mean_loss(gradients: Path) -> float:
    """Mean loss of the measured examples on the base model, from the folder of a condition's gradients."""
    table = load_table(gradients / "alignments.parquet")
    return float(table.drop_duplicates("example")["loss"].mean())
