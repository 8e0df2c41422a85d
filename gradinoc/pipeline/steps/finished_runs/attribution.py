"""The steps that account for drift: what the optimiser's steps did to behaviours, and along which directions."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from gradinoc.claims.evidence.tables import IN_ANSWER, IN_PROMPT, LEARNED, WHOLE
from gradinoc.errors import ModelError
from gradinoc.measure.attribution.accounting import Attribution, attribute
from gradinoc.measure.attribution.shares import Split
from gradinoc.measure.behaviour.decisions import Decision
from gradinoc.measure.training.adapters import digest_of, fresh_adapters, save_adapter, weights_of
from gradinoc.measure.training.order import step_count
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.base_model.directions import band
from gradinoc.pipeline.steps.base_model.gradients import FrozenDirections, frozen_directions
from gradinoc.pipeline.steps.finished_runs.learned import learned_directions
from gradinoc.pipeline.steps.finished_runs.matrix import decided_under
from gradinoc.pipeline.steps.finished_runs.runs import groups
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.step import LEARNED as LEARNED_STEP
from gradinoc.pipeline.steps.training import adapter_after, checkpoint_steps
from gradinoc.pipeline.steps.work import READ, TRAIN, Counting, Work
from gradinoc.pipeline.storage.contents import load_table, save_table
from gradinoc.study.prompts import NEUTRAL

# In the name of an adapter's weight: the block, and the linear map within it.
PLACE = re.compile(r"\.(?P<layer>\d+)\.(?P<module>[\w.]+)\.lora_")


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield a step for each group of runs, where the study asks where drift comes from."""
    settings = context.study.attribution
    for group in groups(context) if settings.questions else ():
        prompts = {name: _text(context, name) for run in group.runs for name in behaviours(context, run)}
        inputs = {
            "questions": settings.questions,
            "prompts": prompts,
            "nulls": context.study.nulls.model_dump(exclude={"training"}),
            **context.extraction_inputs,
        }
        yield Step(
            StepKey("attribution", group.condition, group.runs[0].seed), f"attribution of {group.label}",
            "attribution", partial(compute, context, group.runs), partial(works, group.runs), inputs,
            (DIRECTIONS, UNRELATED, LEARNED_STEP, *group.runs),
        )  # fmt: skip


def behaviours(context: StudyContext, run: StepKey) -> list[str]:
    """The evaluation prompts of which a run's behaviours are accounted for: neutral, its own, and any further ones."""
    own = context.trained_under(run.condition, int(run.seed or 0)).key
    return [*dict.fromkeys((NEUTRAL, own, *context.study.attribution.evaluations))]


def _text(context: StudyContext, name: str) -> str | list[str] | None:
    prompt = context.evaluations[name]
    return list(prompt.templates) or prompt.text


def works(runs: Sequence[StepKey], counting: Counting) -> Iterator[Work]:
    """Count decision log-odds with gradients at every kept adapter of runs, and two passes more under neutral."""
    context = counting.context
    questions = context.splits.evaluation[: context.study.attribution.questions]
    points = 2 + len(checkpoint_steps(context.study))
    for run in runs:
        for name in behaviours(context, run):
            prompt = context.evaluations[name]
            work = counting.decided(questions, prompt.templates[0] if prompt.templates else prompt.text, 1)
            yield work.times(points).to(TRAIN)
            if name == NEUTRAL:
                yield work.times(2 * points).to(READ)


def compute(context: StudyContext, runs: Sequence[StepKey], folders: Folders, folder: Path, callback: Callback) -> None:
    """Write what each run's steps did to behaviours by question, lengths, linear maps, directions and random ones.

    In float32, as directions are found: in half precision the stream's movement along a step is lost in rounding.
    """
    language_model = context.extraction_model()
    model, tokenizer = language_model.model, language_model.tokenizer
    along = frozen_directions(folders[DIRECTIONS], folders[UNRELATED], context.study.nulls)
    named = _named(along, learned_directions(folders[LEARNED_STEP]))
    layers = band(folders[DIRECTIONS])
    frames: dict[str, list[pd.DataFrame]] = {}
    for done, run in enumerate(runs):
        callback("run", done, len(runs))
        count, names = context.study.attribution.questions, behaviours(context, run)
        decided = {name: decided_under(context, name, count) for name in names}
        kept = [*checkpoint_steps(context.study), step_count(context.study.data.train, context.study.training)]
        adapters = [*(adapter_after(folders[run], step) for step in kept[:-1]), folders[run] / "adapter"]
        with tempfile.TemporaryDirectory() as scratch:
            initial = _initial(context, model, run, folders[run], Path(scratch))
            found = attribute(
                (model, tokenizer), adapters, decided, initial=initial, between=0, split={NEUTRAL: named[1]},
                outer=layers,
            )  # fmt: skip
        own = {
            **_accounts(context, found, kept),
            "shares": _shares(found.splits[NEUTRAL], named[0], (0, *kept), _examples(decided[NEUTRAL])),
            "share_nulls": _random(found.outer[NEUTRAL], along, len(_examples(decided[NEUTRAL]))),
        }
        for name, table in own.items():
            frames.setdefault(name, []).append(table.assign(condition=run.condition, seed=run.seed))
    for name, tables in frames.items():
        save_table(pd.concat(tables, ignore_index=True), folder / f"{name}.parquet")


def _initial(context: StudyContext, model: PreTrainedModel, run: StepKey, trained: Path, folder: Path) -> Path:
    """The adapter of a run before its first step, drawn again from its seed.

    PEFT draws in float32 and rounds to the dtype of the model that it is put beside, here the study's.

    Raises:
        ModelError: it is not the adapter that the run began with.
    """
    with fresh_adapters(model, [int(run.seed or 0)], context.study.training) as (wrapped, names):
        with torch.no_grad():
            for weight in weights_of(wrapped, names[0]):
                weight.copy_(weight.to(context.dtype))
        drawn, began = digest_of(wrapped, names[0]), load_table(trained / "runs.parquet")["initial_adapter"].item()
        if drawn != began:
            raise ModelError(
                f"Run {run.condition}/{run.seed} began with an adapter of SHA-256 {str(began)[:16]}, and its seed "
                f"gives {drawn[:16]} here: it was trained with other versions of torch or peft; delete its folder in "
                "the store"
            )
        save_adapter(wrapped, folder / "initial")
    return folder / "initial"


def _named(along: FrozenDirections, learned: Mapping[int, Tensor]) -> tuple[tuple[str, ...], dict[int, Tensor]]:
    """Names of directions, and layer -> unit rows: ways of finding the trait's, unrelated traits', the learned one."""
    count = len(along.ways) + len(along.traits)
    rows = {layer: torch.cat([row[:count], learned[layer][None]]) for layer, row in along.rows.items()}
    return (*along.ways, *along.traits, LEARNED), rows


def _accounts(context: StudyContext, found: Attribution, kept: Sequence[int]) -> dict[str, pd.DataFrame]:
    """The tables `attribution`, `lengths` and `modules` of a run, by the step that each stretch ends at."""
    templates = [example.group for example in context.splits.evaluation]

    def at_steps(table: pd.DataFrame) -> pd.DataFrame:
        steps = [kept[adapter] for adapter in table["adapter"]]
        return table.rename(columns={"behaviour": "evaluation"}).assign(step=steps)

    questions = at_steps(found.questions)
    steps = at_steps(found.steps.drop(columns="step").assign(length=found.steps["step"]))
    places = found.modules["weight"].str.extract(PLACE)
    modules = at_steps(found.modules).assign(layer=places["layer"].astype(int), module=places["module"])
    keys = ["evaluation", "step", "layer", "module"]
    return {
        "attribution": questions[["evaluation", "step", "example", "predicted", "measured"]].assign(
            group=[templates[example] for example in questions["example"]]
        ),
        "lengths": steps[["evaluation", "step", "length", "slope"]],
        "modules": modules.groupby(keys, as_index=False)["predicted"].sum(),
    }


def _examples(decided: Sequence[Decision]) -> list[int]:
    """The questions that have a place."""
    return [place for place, decision in enumerate(decided) if decision.places]


def _shares(
    splits: Sequence[Split], names: Sequence[str], steps: Sequence[int], examples: Sequence[int]
) -> pd.DataFrame:
    """The table `shares` of a run: what went along each direction at each kept adapter, and in all."""
    layers = sorted(splits[0].whole)
    values = np.stack([
        np.stack([torch.cat([split.whole[layer][..., None], split.along[layer]], -1).numpy() for layer in layers])
        for split in splits
    ])  # (steps, layers, examples, positions, directions)  # fmt: skip
    step, layer, example, position, direction = (axis.ravel() for axis in np.indices(values.shape))
    return pd.DataFrame(
        {
            "step": np.asarray(steps)[step],
            "layer": np.asarray(layers)[layer],
            "example": np.asarray(examples)[example],
            "position": np.asarray((IN_PROMPT, IN_ANSWER))[position],
            "direction": np.asarray((WHOLE, *names))[direction],
            "along": values.ravel(),
        }
    )


def _random(outer: Mapping[int, Tensor], along: FrozenDirections, questions: int) -> pd.DataFrame:
    """The table `share_nulls` of a run: what went along each random direction, over all steps, mean over questions."""
    start, frames = len(along.ways) + len(along.traits), []
    for null, count in along.draws.items():
        for layer, products in outer.items():
            rows = along.rows[layer][start : start + count].double()
            values = ((rows @ products) * rows).sum(1) / questions
            frames.append(pd.DataFrame({"null": null, "draw": range(count), "layer": layer, "along": values.numpy()}))
        start += count
    return pd.concat(frames, ignore_index=True)
