"""The steps that measure drift: how much of the trait a model shows, before, early in and after training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.claims.tables import AFTER, BASE, BASE_SEED, BEFORE, EARLY
from gradinoc.data.examples import showing
from gradinoc.measure.drift import DOMAINS, measure_drift
from gradinoc.measure.fast import adapters_in_one_pass
from gradinoc.models.chat.encoding import encode
from gradinoc.pipeline.context import StudyContext, adapted, stacked
from gradinoc.pipeline.steps.directions import band, trait_directions
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.training import adapter_after, early_step, run_key
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.store import save_table
from gradinoc.study.prompts import NEUTRAL


@dataclass(frozen=True)
class Subject:
    """A model to be measured: the folder of its adapter (None for the base model), and what it is called."""

    condition: str
    seed: int
    phase: str
    adapter: Path | None


LABELS = {BEFORE: "drift of the base model", EARLY: "early drift", AFTER: "drift"}


def base_steps(context: StudyContext) -> Iterator[Step]:
    """Yield the step that measures the base model."""
    yield _step(context, BEFORE, None)


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield a step a seed and phase, each of which measures the adapters of all its runs."""
    phases = (AFTER, EARLY) if context.study.secondary.early_drift else (AFTER,)
    for seed in context.study.seeds:
        yield from (_step(context, phase, seed) for phase in phases)


def _step(context: StudyContext, phase: str, seed: int | None) -> Step:
    runs = [run_key(condition, seed) for condition, other in context.study.runs if other == seed is not None]
    inputs = {"drift": context.study.drift.model_dump(), "system": context.system(NEUTRAL)}
    return Step(
        StepKey("drift", seed=seed, phase=phase),
        LABELS[phase] if seed is None else f"{LABELS[phase]} of seed {seed}",
        LABELS[phase],
        partial(_compute_step, context, phase, runs),
        partial(works, phase, max(1, len(runs))),
        inputs,
        (DIRECTIONS, *runs),
    )


def works(phase: str, copies: int, counting: Counting) -> Iterator[Work]:
    """Count responses, projections and log-odds of so many models, in one pass over all."""
    context = counting.context
    splits, settings, system = context.splits, context.study.drift, context.system(NEUTRAL)
    parts = [splits.evaluation[: settings.generations]]
    if phase != EARLY:
        parts.append(splits.everyday[: settings.everyday])
    for part in parts:
        for work in counting.written(part, system, settings.max_new_tokens, settings.batch_size):
            yield work.stacked(copies)
    yield counting.prompts([example for part in parts for example in part], system).stacked(copies)
    scored = splits.evaluation[: settings.log_odds]
    answers = [
        encode(counting.tokenizer, example.question, answer, system)
        for example in scored
        for answer in (showing(example, context.trait), example.answer)
    ]
    yield counting.scored(answers, max(1, settings.batch_size // copies)).stacked(copies)


def _compute_step(
    context: StudyContext, phase: str, runs: Sequence[StepKey], folders: Folders, folder: Path, callback: Callback
) -> None:
    subjects = [Subject(BASE, BASE_SEED, BEFORE, None)] if phase == BEFORE else []
    for run in runs:
        assert run.seed is not None
        path = folders[run]
        adapter = path / "adapter" if phase == AFTER else adapter_after(path, early_step(context.study))
        subjects.append(Subject(run.condition, run.seed, phase, adapter))
    compute(context, subjects, folders[DIRECTIONS], folder, callback)


def compute(
    context: StudyContext, subjects: Sequence[Subject], directions: Path, folder: Path, callback: Callback
) -> None:
    """Write responses, log-odds and projections of the base model, or of adapted `subjects` of one phase.

    Early in training everyday requests are left out. Subjects of a fused model are measured in one pass over all.
    """
    in_band = set(band(directions))
    axes = {layer: direction for layer, direction in trait_directions(directions).items() if layer in in_band}
    base, phase = context.language_model.model, subjects[0].phase
    together = adapters_in_one_pass(base, subjects)
    drift, responses = [], []
    parts = iter(range(3 * len(together)))
    for group in together:
        adapters = [subject.adapter for subject in group if subject.adapter]
        with stacked(base, adapters) if len(adapters) > 1 else adapted(base, next(iter(adapters), None)) as model:
            tables = measure_drift(
                (model, context.language_model.tokenizer),
                context.splits,
                context.trait,
                axes,
                context.study.drift,
                context.system(NEUTRAL),
                lambda part: callback(part, next(parts), 3 * len(together)),
                ["in_distribution"] if phase == EARLY else list(DOMAINS),
                copies=len(group),
            )
        for subject, (measures, written) in zip(group, tables, strict=True):
            named = {"condition": subject.condition, "seed": subject.seed, "phase": phase}
            drift.append(measures.assign(**named))
            responses.append(written.assign(**named))
    save_table(pd.concat(drift, ignore_index=True), folder / "drift.parquet")
    save_table(pd.concat(responses, ignore_index=True), folder / "responses.parquet")
