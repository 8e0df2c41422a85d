"""The dose of a study: how far runs that are not among its own drift, at one learning rate after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from gradinoc.errors import StudyError
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.progress import OnProgress
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.finished_runs import dose
from gradinoc.pipeline.steps.plan import plan
from gradinoc.pipeline.steps.step import DIRECTIONS, Step, StepKey, run_key
from gradinoc.pipeline.storage.contents import load_table
from gradinoc.pipeline.storage.store import Store
from gradinoc.stats.effect import Effect, paired_effect
from gradinoc.study.description import Study
from gradinoc.study.prompts import CONDITIONS, NEUTRAL
from gradinoc.study.prompts.family import Family

LOW, HIGH = 0.3, 0.6  # of the scale: where the drift of harmless runs is to land
REACHED = 0.6  # by neutral runs, where harmless ones do not drift
STEP, BELOW, ABOVE = 2**0.5, 2, 2  # a ladder of learning rates: factor, rungs under the study's own and over it


@dataclass(frozen=True)
class Rung:
    """What runs at one learning rate came to.

    Attributes:
        lr: the learning rate.
        drift: key of the prompt trained under -> rise of the trait's score in sampled responses to calibration
            questions, neutral prompt: a fraction of the scale, paired over the questions that can be scored.
        after: the same, the mean score itself.
    """

    lr: float
    drift: Mapping[str, Effect]
    after: Mapping[str, float]

    @property
    def harmless(self) -> float:
        """The mean drift of the harmless runs."""
        return float(np.mean([effect.estimate for key, effect in self.drift.items() if key != NEUTRAL]))

    @property
    def neutral(self) -> float:
        """The drift of the neutral run."""
        return self.drift[NEUTRAL].estimate


def ladder(study: Study) -> tuple[float, ...]:
    """Learning rates around the study's own, a factor of the square root of two apart, the smallest first."""
    return tuple(float(f"{study.training.lr * STEP**rung:.2g}") for rung in range(-BELOW, ABOVE + 1))


def harmless_prompts(study: Study, count: int = 2) -> tuple[str, ...]:
    """The first harmless prompts of a fixed wording that are no condition's, beginning with those trained under."""
    trained, measured, known = study.prompts_trained, study.prompts_measured, study.prompts_known
    keys = dict.fromkeys([*trained, *measured, *known])
    fixed = (key for key in keys if known[key].family is Family.HARMLESS and not known[key].is_rephrased)
    return tuple(key for key in fixed if key not in CONDITIONS)[:count]


def climb(
    study: Study, rates: Sequence[float], prompts: Sequence[str], seed: int, store: Path, on_progress: OnProgress | None
) -> Iterator[Rung]:
    """Train a neutral run and one under each of the harmless `prompts` at each learning rate, from the smallest up.

    It ends where the harmless runs drift by `LOW` of the scale. What is computed is kept in the store, where the study
    finds none of it but directions: the runs' seed is not among its own.

    Raises:
        StudyError: the seed is one of the study's, a rate or prompt is not as it should be, or nothing can be scored.
        GradinocError: as `Pipeline.complete`.
    """
    if seed in study.seeds:
        raise StudyError(f"seed {seed}: one of the study's; a dose is found on runs that decide nothing else")
    if wrong := [rate for rate in rates if not 0 < rate <= 1]:
        raise StudyError(f"learning rate {wrong[0]:g}: expected more than 0, and 1 at most")
    known = study.prompts_known
    for key in prompts:
        if key in study.conditions or key not in known or known[key].family is not Family.HARMLESS:
            there = ", ".join(harmless_prompts(study, len(known)))
            raise StudyError(f"prompt {key!r}: expected a harmless one that is no condition's, of {there}")
    chosen = study.prompts.model_copy(update={"trained": (*prompts,)})
    for rate in sorted({*rates}):
        training = study.training.model_copy(update={"lr": rate})
        other = study.model_copy(update={"seeds": (seed,), "prompts": chosen, "training": training, "arms": {}})
        rung = _tried(other, (NEUTRAL, *prompts), Store(store), on_progress)
        yield rung
        if rung.harmless >= LOW:
            return


def advice(rungs: Sequence[Rung]) -> str:
    """Which learning rate to take, by the rule that was fixed before any was tried: the smallest that lands."""
    landed = next((rung for rung in rungs if LOW <= rung.harmless <= HIGH), None)
    if landed:
        return (
            f"training.lr = {landed.lr:g}, the smallest at which harmless runs drift by {LOW:g} to {HIGH:g} of the "
            f"scale (here {landed.harmless:.2f})"
        )
    reached = next((rung for rung in rungs if rung.neutral >= REACHED), None)
    beyond = next((rung for rung in rungs if rung.harmless > HIGH), None)
    if beyond:
        below = max((rung.lr for rung in rungs if rung.lr < beyond.lr), default=beyond.lr / 2)
        return (
            f"none yet: at {beyond.lr:g} harmless runs drift by {beyond.harmless:.2f}, more than {HIGH:g} of the "
            f"scale; try --lr {float(f'{(below * beyond.lr) ** 0.5:.2g}'):g}"
        )
    if reached:
        return (
            f"training.lr = {reached.lr:g}, at which the neutral run drifts by {reached.neutral:.2f}: no harmless one "
            f"drifts by {LOW:g} of the scale at any rate tried, which is itself learning that is bound to its prompt"
        )
    highest = max(rung.lr for rung in rungs)
    return (
        f"none: up to {highest:g} no run drifts that far; try --lr {float(f'{highest * STEP:.2g}'):g}, or more "
        "training.steps"
    )


def as_table(rungs: Sequence[Rung]) -> pd.DataFrame:
    """One row a run: lr, condition, drift, low, high (95 %, over questions), after, questions."""
    return pd.DataFrame(
        [
            {
                "lr": rung.lr, "condition": key, "drift": effect.estimate, "low": effect.low, "high": effect.high,
                "after": rung.after[key], "questions": effect.n,
            }
            for rung in rungs
            for key, effect in rung.drift.items()
        ]
    )  # fmt: skip


def _tried(study: Study, prompts: Sequence[str], store: Store, on_progress: OnProgress | None) -> Rung:
    (seed,) = study.seeds
    base = StepKey("elicitation", NEUTRAL)
    runs = [run_key(prompt, seed) for prompt in prompts]
    with closing(Pipeline(study, store, on_progress, planned=partial(_planned, runs, base))) as pipeline:
        pipeline.complete()
    before = load_table(pipeline.entries[base].path / "behaviour.parquet")
    after = {run.condition: load_table(pipeline.entry("dose", run.condition, seed).path / dose.SCORES) for run in runs}
    return Rung(
        study.training.lr,
        {key: _rise(before, scores, key) for key, scores in after.items()},
        {key: float(scores["score"].mean()) for key, scores in after.items()},
    )


def _planned(runs: Sequence[StepKey], base: StepKey, context: StudyContext) -> dict[StepKey, Step]:
    every = plan(context)
    tried = {step.key: step for step in dose.steps(context, runs)}
    return {key: every[key] for key in (DIRECTIONS, base, *runs)} | tried


def _rise(before: pd.DataFrame, after: pd.DataFrame, key: str) -> Effect:
    """Mean score of a question's samples after training less that before it, over questions that have both."""
    means = [table.groupby("example")["score"].mean() for table in (after, before)]
    both = pd.concat(means, axis=1, keys=["after", "before"]).dropna()
    if both.empty:
        raise StudyError(f"Run under {key}: no response can be scored, before and after training; see to the trait")
    return paired_effect(both["after"], both["before"], f"drift under {key}", "questions")
