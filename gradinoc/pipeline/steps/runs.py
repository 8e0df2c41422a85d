"""What steps that evaluate finished runs share: whose adapters they load, in how many passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from gradinoc.claims.tables import BASE, BASE_SEED
from gradinoc.measure.fast import adapters_in_one_pass
from gradinoc.pipeline.context import StudyContext, adapted, stacked
from gradinoc.pipeline.steps.step import Folders, StepKey
from gradinoc.pipeline.steps.training import run_key


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


def runs_of(context: StudyContext, seed: int) -> list[StepKey]:
    """Return the keys of a seed's runs."""
    return [run_key(condition, other) for condition, other in context.study.runs if other == seed]


def models(
    context: StudyContext, subjects: Sequence[Subject]
) -> Iterator[tuple[PreTrainedModel | PeftModel, list[Subject]]]:
    """Yield models with the adapters of several subjects each, as many as one pass takes, and which these are."""
    base = context.language_model.model
    for group in adapters_in_one_pass(base, subjects):
        adapters = [subject.adapter for subject in group if subject.adapter]
        with stacked(base, adapters) if len(adapters) > 1 else adapted(base, next(iter(adapters), None)) as model:
            yield model, list(group)
