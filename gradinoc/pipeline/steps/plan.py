"""The plan of a study: its steps, and the keys under which their results are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any

from gradinoc.models.machine.device import precision_overrides
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps import training
from gradinoc.pipeline.steps.base_model import directions, elicitation, gradients, kernel, matched, steering, unrelated
from gradinoc.pipeline.steps.finished_runs import attribution, checkpoints, dose, drift, learned, matrix, weights
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.provenance import code_version, library_versions
from gradinoc.pipeline.storage.store import Entry, Store
from gradinoc.study.chat_template import SHIPPED

STAGES = {module.__name__.rpartition(".")[2]: module.__name__ for module in (
    directions, unrelated, elicitation, steering, gradients, drift, training, checkpoints, matrix,
    learned, attribution, kernel, matched, weights,
)}  # fmt: skip
BESIDE = {"dose": dose.__name__}  # the stage of a search, of which no study has steps
# Their values are inputs of the steps that use them; how they are written, counted or shown changes no result.
UNCOUNTED = (
    "gradinoc.study.description", "gradinoc.study.settings", "gradinoc.study.fields", "gradinoc.study.rules",
    "gradinoc.study.loading", "gradinoc.pipeline.storage.store", "gradinoc.pipeline.storage.contents",
    "gradinoc.pipeline.storage.provenance", "gradinoc.pipeline.steps.step", "gradinoc.pipeline.steps.work",
    "gradinoc.disk", "gradinoc.data.formats", "gradinoc.errors", "gradinoc.measure.training.tracking",
    "gradinoc.models.chat.rendered",
)  # fmt: skip
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "accelerate")  # whose versions decide every result


def plan(context: StudyContext) -> dict[StepKey, Step]:
    """Return every step of the study, each after those it needs; what needs little comes first."""
    steps = chain(
        directions.steps(context),
        unrelated.steps(context),
        steering.steps(context),
        elicitation.steps(context),
        gradients.steps(context),
        drift.base_steps(context),
        matrix.base_steps(context),
        kernel.steps(context),
        training.steps(context),
        learned.steps(context),
        matched.steps(context),
        training.arm_steps(context),
        drift.steps(context),
        checkpoints.steps(context),
        matrix.steps(context),
        weights.steps(context),
        attribution.steps(context),
    )
    return {step.key: step for step in steps}


def entries(context: StudyContext, steps: Mapping[StepKey, Step], store: Store) -> dict[StepKey, Entry]:
    """Return each step's place in the store, under a key of everything that determines its result."""
    common, found = _common_inputs(context), dict[StepKey, Entry]()
    for key, step in steps.items():
        determined_by = {
            **common,
            **step.inputs,
            "step": asdict(key),
            "needs": [found[need].key for need in step.needs],
            "code": code_version((STAGES | BESIDE)[key.stage], without=UNCOUNTED),
        }
        found[key] = store.entry(key.stage, determined_by)
    return found


def _common_inputs(context: StudyContext) -> dict[str, Any]:
    """Return what decides the result of every step."""
    model = context.study.model
    overrides = precision_overrides(context.device)
    return {
        "model": context.fingerprint,
        "device": context.device.type,
        "dtype": str(context.dtype),
        **({"overrides": overrides} if overrides else {}),
        "kernels": model.kernels,
        "chat_template": model.chat_template and SHIPPED.get(model.chat_template, model.chat_template),
        "date": model.date.isoformat(),
        "libraries": library_versions(*LIBRARIES, *context.trait.libraries),
        "data": context.splits.digest,
        "trait": context.trait.identity or context.trait.name,
    }
