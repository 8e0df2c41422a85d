"""The step that finds the direction in which the neutral runs moved the residual stream."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.models.blocks import decoder_blocks
from gradinoc.pipeline.context import StudyContext, adapted
from gradinoc.pipeline.steps.step import LEARNED, Callback, Folders, Step, run_key
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import load_tensors, save_tensors
from gradinoc.study import arms
from gradinoc.study.prompts import NEUTRAL

SHIFT = "shift"


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage, where the study asks where drift comes from, or arms act along it."""
    along = {arm.direction for arm in context.study.arms.values()}
    if not context.study.attribution.questions and arms.LEARNED not in along:
        return
    runs = tuple(run_key(condition, seed) for condition, seed in context.study.runs if condition == NEUTRAL)
    inputs = {
        "questions": context.study.nulls.unrelated_questions,
        "system": context.systems[NEUTRAL],
        **context.extraction_inputs,
    }
    name = "direction of the neutral drift"
    yield Step(LEARNED, name, name, partial(compute, context), works, inputs, runs)


def works(counting: Counting) -> Iterator[Work]:
    """Count the questions under the neutral prompt, before training and after each neutral run."""
    context = counting.context
    questions = context.splits.direction[: context.study.nulls.unrelated_questions]
    yield counting.prompts(questions, context.systems[NEUTRAL]).times(1 + len(context.study.seeds))


def compute(context: StudyContext, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write by how much the neutral runs moved the mean state at the last prompt token, mean over runs, by layer."""
    language_model = context.extraction_model()
    layers = range(len(decoder_blocks(language_model.model)))
    questions = [each.question for each in context.splits.direction[: context.study.nulls.unrelated_questions]]

    def states(adapter: Path | None) -> Tensor:
        with adapted(language_model.model, adapter) as model:
            found = prompt_activations(model, language_model.tokenizer, questions, context.systems[NEUTRAL], layers)
        return torch.stack([found[layer].double().mean(0) for layer in layers])

    before, shift = states(None), torch.zeros(())
    for done, run in enumerate(folders):
        callback("neutral run", done, len(folders))
        shift = shift + (states(folders[run] / "adapter") - before) / len(folders)
    save_tensors({SHIFT: shift.float()}, folder / "learned.safetensors")


def learned_directions(folder: Path) -> dict[int, Tensor]:
    """Layer -> unit vector `[hidden]` along which neutral runs moved the last prompt token, from this step's folder."""
    shift = load_tensors(folder / "learned.safetensors")[SHIFT]
    return dict(enumerate(nn.functional.normalize(shift, dim=-1)))
