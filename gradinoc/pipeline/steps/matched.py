"""The step that compares at equal loss by training: a neutral run's checkpoint whose loss is inoculation's first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.measure.alignment import answer_losses, measure_alignments
from gradinoc.measure.training.order import spaced_steps, step_count
from gradinoc.pipeline.context import StudyContext, adapted
from gradinoc.pipeline.steps.directions import trait_directions
from gradinoc.pipeline.steps.gradients import gradients_key
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.training import adapter_after, run_key
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.store import load_table, save_table
from gradinoc.study.prompts import INOCULATION, NEUTRAL

BATCH = 4  # examples a pass: with more, memory grows and no pass is faster
LOOKS = 3  # checkpoints whose loss is taken, about: it depends on the losses


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a neutral run, where the study asks for them."""
    for condition, seed in context.study.runs:
        if condition == NEUTRAL and context.study.secondary.matched_checkpoints:
            needs = (DIRECTIONS, run_key(NEUTRAL, seed), gradients_key(NEUTRAL), gradients_key(INOCULATION))
            yield Step(
                StepKey("matched", seed=seed), f"matched checkpoint {seed}", "matched checkpoints",
                partial(compute, context, seed), works, {"seed": seed}, needs,
            )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count the losses of some checkpoints, and the gradients of one."""
    answers = counting.answers(counting.context.splits.measure, counting.system(NEUTRAL))
    yield counting.scored(answers, BATCH).times(LOOKS)
    yield from counting.learned(answers, BATCH)


def nearest(steps: Sequence[int], loss: Callable[[int], float], target: float) -> dict[int, float]:
    """Return loss by step for the steps that were looked at, the two on either side of `target` among them.

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


def compute(context: StudyContext, seed: int, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write the alignments of that checkpoint of a neutral run whose loss is nearest inoculation's on the base model.

    Loss and alignment are those of the measured examples under the neutral prompt; the base model and the finished run
    count as checkpoints.
    """
    total = step_count(context.study.data.train, context.study.training)
    steps = [0, *spaced_steps(total), total]
    examples = context.encoded(context.splits.measure, context.system(NEUTRAL))
    base, run = context.language_model.model, folders[run_key(NEUTRAL, seed)]

    def adapter(step: int) -> Path | None:
        if step == 0:
            return None
        return run / "adapter" if step == total else adapter_after(run, step)

    def loss(step: int) -> float:
        callback(f"loss after {step} steps")
        if step == 0:
            return _mean_loss(folders[gradients_key(NEUTRAL)])
        with adapted(base, adapter(step)) as model:
            return float(answer_losses(model, examples, context.pad, BATCH).mean())

    target = _mean_loss(folders[gradients_key(INOCULATION)])
    seen = nearest(steps, loss, target)
    chosen = min(seen, key=lambda step: abs(seen[step] - target))
    directions = {layer: direction[None] for layer, direction in trait_directions(folders[DIRECTIONS]).items()}
    with adapted(base, adapter(chosen)) as model:
        found = measure_alignments(
            model,
            examples,
            directions,
            context.pad,
            BATCH,
            lambda done, count: callback("gradients of example", done, count),
        )
    rows = [
        {"seed": seed, "step": step, "loss": value, "target": target, "chosen": step == chosen}
        for step, value in sorted(seen.items())
    ]
    save_table(found.table.assign(seed=seed, step=chosen), folder / "matched.parquet")
    save_table(pd.DataFrame(rows), folder / "matched_steps.parquet")


def _mean_loss(gradients: Path) -> float:
    """Return the mean loss of the measured examples on the base model, from the folder of a condition's gradients."""
    table = load_table(gradients / "alignments.parquet")
    return float(table.drop_duplicates("example")["loss"].mean())
