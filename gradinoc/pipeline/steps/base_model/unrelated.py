"""The step that finds directions of prompts that have nothing to do with the trait under study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gradinoc.measure.directions.extraction import mean_difference, prompt_activations, unmoved
from gradinoc.models.blocks import decoder_blocks
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.step import UNRELATED, Callback, Step
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import save_tensors
from gradinoc.study.prompts import HARMLESS

TRAITS, INSTRUCTIONS = "unrelated.safetensors", "instructions.safetensors"  # files


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage."""
    inputs = {"questions": context.study.nulls.unrelated_questions, **context.extraction_inputs}
    yield Step(
        UNRELATED, "unrelated prompts", "unrelated prompts",
        lambda _needed, folder, callback: compute(context, folder, callback), works, inputs,
    )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count a few direction questions under both prompts of each unrelated trait, and under the unrelated prompts."""
    context = counting.context
    questions = context.splits.direction[: context.study.nulls.unrelated_questions]
    for system in (*(side for contrast in context.trait.unrelated.values() for side in contrast), *HARMLESS):
        yield counting.prompts(questions, system)


def compute(context: StudyContext, folder: Path, callback: Callback) -> None:
    """Write each unrelated trait's direction at every layer, `[layers, hidden]`, as the trait's own is found.

    Where nothing of the system prompts is seen there is none, NaN, as of the trait. And the mean state under each of
    the unrelated prompts, `[layers, prompts, hidden]`, of which instruction contrasts are made.
    """
    language_model = context.extraction_model()
    model, tokenizer = language_model.model, language_model.tokenizer
    layers = list(range(len(decoder_blocks(model))))
    questions = [example.question for example in context.splits.direction[: context.study.nulls.unrelated_questions]]
    contrasts, done = context.trait.unrelated, iter(range(1_000_000))
    count = 2 * len(contrasts) + len(HARMLESS)

    def states(system: str) -> dict[int, Tensor]:
        callback("activations under prompt", next(done), count)
        return prompt_activations(model, tokenizer, questions, system, layers)

    found = {}
    for name, sides in contrasts.items():
        promote, suppress = map(states, sides)
        found[name] = torch.stack([_direction(promote[layer], suppress[layer]) for layer in layers])
    save_tensors(found, folder / TRAITS)
    means = [torch.stack([rows.double().mean(0).float() for rows in states(prompt).values()]) for prompt in HARMLESS]
    save_tensors({"means": torch.stack(means, dim=1)}, folder / INSTRUCTIONS)


def _direction(promote: Tensor, suppress: Tensor) -> Tensor:
    if unmoved(promote, suppress):
        return torch.full_like(promote[0], torch.nan)
    return mean_difference(promote, suppress)
