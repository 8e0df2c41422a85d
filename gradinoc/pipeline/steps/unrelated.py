"""The step that finds the directions of traits that have nothing to do with the one under study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gradinoc.measure.directions import mean_difference, prompt_activations, unmoved
from gradinoc.models.blocks import decoder_blocks
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.step import UNRELATED, Callback, Step
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.store import save_tensors


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage."""
    inputs = {"questions": context.study.nulls.unrelated_questions, **context.extraction_inputs}
    yield Step(
        UNRELATED, "unrelated traits", "unrelated traits",
        lambda _needed, folder, callback: compute(context, folder, callback), works, inputs,
    )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count a few direction questions under both prompts of each unrelated trait."""
    context = counting.context
    questions = context.splits.direction[: context.study.nulls.unrelated_questions]
    for contrast in context.trait.unrelated.values():
        yield from (counting.prompts(questions, side) for side in contrast)


def compute(context: StudyContext, folder: Path, callback: Callback) -> None:
    """Write each unrelated trait's direction at every layer, `[layers, hidden]`, as the trait's own is found.

    Where nothing of the system prompts is seen there is none, NaN, as of the trait.
    """
    language_model = context.extraction_model()
    model, tokenizer = language_model.model, language_model.tokenizer
    layers = list(range(len(decoder_blocks(model))))
    questions = [example.question for example in context.splits.direction[: context.study.nulls.unrelated_questions]]
    found: dict[str, Tensor] = {}
    contrasts = context.trait.unrelated
    for name, contrast in contrasts.items():
        sides: list[dict[int, Tensor]] = []
        for side in contrast:
            callback("activations under prompt", 2 * len(found) + len(sides), 2 * len(contrasts))
            sides.append(prompt_activations(model, tokenizer, questions, side, layers))
        promote, suppress = sides
        found[name] = torch.stack([_direction(promote[layer], suppress[layer]) for layer in layers])
    save_tensors(found, folder / "unrelated.safetensors")


def _direction(promote: Tensor, suppress: Tensor) -> Tensor:
    if unmoved(promote, suppress):
        return torch.full_like(promote[0], torch.nan)
    return mean_difference(promote, suppress)
