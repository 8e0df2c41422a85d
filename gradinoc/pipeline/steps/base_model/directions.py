"""The step that finds the trait direction of every layer, other ways to find it, and the band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradinoc.claims.evidence.tables import PROMOTE, SUPPRESS
from gradinoc.data.examples import Example, showing
from gradinoc.errors import ModelError
from gradinoc.measure.directions.extraction import (
    answer_activations,
    declare_band,
    layer_statistics,
    mean_difference,
    prompt_activations,
    separation,
    unmoved,
)
from gradinoc.measure.loading.load import LanguageModel
from gradinoc.measure.steering.effects import half_distances
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode
from gradinoc.pipeline.context import StudyContext, save_loading
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Step
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import load_json, load_table, load_tensors, save_json, save_table, save_tensors
from gradinoc.stats.effect import split_half_cosine
from gradinoc.study.prompts import NEUTRAL

TRAIT, RESPONSES = "trait", "responses"  # names of directions; further wordings are `wording_2`, `wording_3`
BATCH = 8  # answers a forward pass


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage."""
    inputs = {
        "contrasts": [list(sides) for sides in context.trait.contrasts],
        "neutral": context.systems[NEUTRAL],
        **context.extraction_inputs,
    }
    yield Step(
        DIRECTIONS, "directions", "directions",
        lambda _needed, folder, callback: compute(context, folder, callback), works, inputs,
    )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count the direction questions under the trait's prompts, fewer under other wordings, and a few answers."""
    context = counting.context
    few = _few(context)
    for number, sides in enumerate(context.trait.contrasts):
        for side in sides:
            yield counting.prompts(few if number else context.splits.direction, side)
    for ordinary in (False, True):
        yield counting.scored(counting.answers(few, context.systems[NEUTRAL], ordinary=ordinary), BATCH)


def _few(context: StudyContext) -> Sequence[Example]:
    """Direction questions from which other ways of finding the direction are computed: of those that fit its own."""
    fitted = context.splits.direction[: len(context.splits.direction) // 2]
    return fitted[: context.study.nulls.unrelated_questions]


def compute(context: StudyContext, folder: Path, callback: Callback) -> None:
    """Write the trait direction of every layer, the activations it is made of, its separation, the band, and notes.

    A layer at which the last prompt token sees nothing of the system prompt has none, NaN, and no part in anything.

    Half of the direction questions make the direction, a quarter declares the band, and a quarter, which had no part in
    either, is what gate G1 looks at.
    """
    language_model = context.extraction_model()
    model, tokenizer = language_model.model, language_model.tokenizer
    layers = list(range(len(decoder_blocks(model))))
    questions = [example.question for example in context.splits.direction]
    states: dict[str, dict[int, Tensor]] = {}
    systems = dict(zip((PROMOTE, SUPPRESS), context.trait.contrasts[0], strict=True))
    for side, system in systems.items():
        callback("activations under prompt", len(states), len(systems))
        states[side] = prompt_activations(model, tokenizer, questions, system, layers)
    half, three_quarters = len(questions) // 2, 3 * len(questions) // 4

    def part(side: str, start: int, stop: int) -> dict[int, Tensor]:
        return {layer: rows[start:stop] for layer, rows in states[side].items()}

    promote, suppress = part(PROMOTE, 0, half), part(SUPPRESS, 0, half)
    seeing = [layer for layer in layers if not unmoved(promote[layer], suppress[layer])]
    if not seeing:
        raise ModelError(
            f"{context.study.model.id}: promoting and suppressing prompts give the same states at the last prompt "
            "token of every layer; expected a model that sees its system prompt there; give another model.id"
        )
    directions = {layer: mean_difference(promote[layer], suppress[layer]) for layer in seeing}
    declaring, gate = (
        separation(part(PROMOTE, start, stop), part(SUPPRESS, start, stop), directions)
        for start, stop in ((half, three_quarters), (three_quarters, len(questions)))
    )
    table = layer_statistics(declaring)
    table["auc"] = layer_statistics(gate)["auc"]
    table["split_half_cosine"] = [
        split_half_cosine((promote[layer] - suppress[layer]).numpy(), np.random.default_rng(0)) for layer in seeing
    ]
    table["in_band"] = table["layer"].isin(declare_band(table))
    halves = half_distances(promote, suppress, directions)
    found = {TRAIT: directions, **_other_ways(context, language_model, seeing, callback)}
    nothing = torch.full_like(directions[seeing[0]], torch.nan)
    stacked = {name: torch.stack([rows.get(layer, nothing) for layer in layers]) for name, rows in found.items()}
    save_tensors(stacked, folder / "directions.safetensors")
    sides = {PROMOTE: promote, SUPPRESS: suppress}
    save_tensors(
        {side: torch.stack([rows[layer] for layer in layers]) for side, rows in sides.items()},
        folder / "contrasts.safetensors",
    )  # (layers, questions, hidden)
    save_json({str(layer): length for layer, length in halves.items()}, folder / "half_distances.json")
    save_table(table, folder / "layers.parquet")
    save_table(gate, folder / "projections.parquet")
    blind = sorted(set(layers) - set(seeing))
    note = (
        f"layers {blind} see nothing of the system prompt at the last prompt token (windows or convolutions do not "
        "reach so far back): they have no direction, and are left out"
    )
    save_loading(language_model, folder, [note] if blind else [])


def _other_ways(
    context: StudyContext, language_model: LanguageModel, layers: Sequence[int], callback: Callback
) -> dict[str, dict[int, Tensor]]:
    """Return name -> layer -> direction by other wordings of the two prompts, and by the contrast of responses."""
    model, tokenizer, few = language_model.model, language_model.tokenizer, _few(context)
    questions = [example.question for example in few]
    found = {}
    for number, sides in enumerate(context.trait.contrasts[1:], start=2):
        callback("activations under other wordings", number - 2, len(context.trait.contrasts) - 1)
        promote, suppress = (prompt_activations(model, tokenizer, questions, side, layers) for side in sides)
        found[f"wording_{number}"] = _contrast(promote, suppress, layers)
    callback("activations of answers")
    system, pad = context.systems[NEUTRAL], int(tokenizer.pad_token_id)
    answers = [[showing(each, context.trait) for each in few], [each.answer for each in few]]
    bearing, ordinary = (
        answer_activations(
            model, [encode(tokenizer, each.question, answer, system) for each, answer in zip(few, texts, strict=True)],
            layers, pad, BATCH,
        )
        for texts in answers
    )  # fmt: skip
    return found | {RESPONSES: _contrast(bearing, ordinary, layers)}


def _contrast(promote: dict[int, Tensor], suppress: dict[int, Tensor], layers: Sequence[int]) -> dict[int, Tensor]:
    """Return layer -> direction, without layers that see nothing of what sets the sides apart."""
    return {
        layer: mean_difference(promote[layer], suppress[layer])
        for layer in layers
        if not unmoved(promote[layer], suppress[layer])
    }


def trait_directions(folder: Path) -> dict[int, Tensor]:
    """Return layer -> trait direction, a unit vector `[hidden]`, from the folder of this step.

    Layers without one, since they see nothing of the system prompt, are left out.
    """
    rows = enumerate(load_tensors(folder / "directions.safetensors")[TRAIT])
    return {layer: row for layer, row in rows if bool(row.isfinite().all())}


def named_directions(folder: Path) -> dict[str, dict[int, Tensor]]:
    """Return name -> layer -> direction by each way of finding it that has one at every layer of the trait's own."""
    layers = trait_directions(folder)
    found = {
        name: {layer: rows[layer] for layer in layers}
        for name, rows in load_tensors(folder / "directions.safetensors").items()
    }
    whole = {name: rows for name, rows in found.items() if all(bool(row.isfinite().all()) for row in rows.values())}
    return {TRAIT: layers, **{name: whole[name] for name in sorted(whole) if name != TRAIT}}


def half_lengths(folder: Path) -> dict[int, float]:
    """Return layer -> half the distance between the two prompts along the direction, hidden-state units."""
    return {int(layer): float(length) for layer, length in load_json(folder / "half_distances.json").items()}


def band(folder: Path) -> tuple[int, ...]:
    """Return the layers on which decisions rest, from the folder of this step."""
    table = load_table(folder / "layers.parquet")
    return tuple(int(layer) for layer in table.loc[table["in_band"], "layer"])
