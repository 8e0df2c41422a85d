"""What steps that evaluate finished runs share: whose adapters they load, in how many passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from gradinoc.claims.evidence.tables import BASE, BASE_SEED
from gradinoc.measure.fast import adapters_in_one_pass
from gradinoc.pipeline.context import StudyContext, adapted, stacked
from gradinoc.pipeline.steps.step import Folders, StepKey, run_key

# Adapters that are measured in one step. More at a time are no faster (2.5 ms a token with 6 and with 17 of SmolLM2,
# 16 responses each) and take more memory, and the last step would keep one worker busy while the others wait.
TOGETHER = 8


@dataclass(frozen=True)
class Subject:
    """A model to be measured: what it is called, after how many steps, and its adapter (None: the base model)."""

    condition: str
    seed: int
    step: int
    adapter: Path | None

    @property
    def label(self) -> str:
        """What is sampled from."""
        return f"{self.condition} {self.seed} {self.step}"


def finished(runs: Sequence[StepKey], folders: Folders) -> list[Subject]:
    """Return the models at the end of `runs`, or the base model if there are none."""
    if not runs:
        return [Subject(BASE, BASE_SEED, 0, None)]
    return [Subject(run.condition, int(run.seed or 0), -1, folders[run] / "adapter") for run in runs]


@dataclass(frozen=True)
class Group:
    """Runs of one seed that are measured in one step; `label` names it in messages."""

    runs: tuple[StepKey, ...]
    label: str

    @property
    def condition(self) -> str:
        """The condition of its first run, which tells it from the seed's other groups."""
        return self.runs[0].condition


def groups(context: StudyContext) -> Iterator[Group]:
    """Yield the runs of every seed in as few groups of at most `TOGETHER` as there can be, nearly alike in size.

    Arms have groups of their own: those of the other runs are the same with arms and without.
    """
    for kind, planned in (("", context.study.runs), ("arms of ", [*context.study.arm_runs])):
        for seed in context.study.seeds:
            runs = [run_key(condition, other) for condition, other in planned if other == seed]
            parts = np.array_split(np.arange(len(runs)), -(-len(runs) // TOGETHER)) if runs else []
            for number, part in enumerate(parts, start=1):
                several = f", part {number} of {len(parts)}" if len(parts) > 1 else ""
                yield Group(tuple(runs[place] for place in part), f"{kind}seed {seed}{several}")


def models(
    context: StudyContext, subjects: Sequence[Subject]
) -> Iterator[tuple[PreTrainedModel | PeftModel, list[Subject]]]:
    """Yield models with the adapters of several subjects each, as many as one pass takes, and which these are."""
    base = context.language_model.model
    for group in adapters_in_one_pass(base, subjects):
        adapters = [subject.adapter for subject in group if subject.adapter]
        with stacked(base, adapters) if len(adapters) > 1 else adapted(base, next(iter(adapters), None)) as model:
            yield model, list(group)
