"""Estimate the memory of one process that computes a study, by what it holds at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from gradinoc.measure.fast.kernels import CHUNK
from gradinoc.models.machine.memory import OF_ADAPTER
from gradinoc.pipeline.estimate.shapes import Shapes
from gradinoc.pipeline.steps.work import LEARN, READ, TRAIN, Work
from gradinoc.study.description import Study
from gradinoc.study.traits.registry import find_trait

LIBRARIES = 640 * 10**6  # bytes of a process before it has loaded a model: Python, torch, transformers, pandas
TOTAL = "largest at a time, libraries included"
# Over what is kept for a backward pass: the gradients on their way back, and what allocation loses. Measured: 1.3 to
# 1.4 with SmolLM2-135M and with the shapes of Qwen2.5-Coder-0.5B, bfloat16.
BACKWARD = 1.4
FLOAT32 = 4  # bytes
ON_HOST = 3  # gradients of all weights: a behaviour's, a prompt's as it is added up, and that of a batch, on the device
PASSES = (READ, LEARN, TRAIN)


def footprint(
    shapes: Shapes,
    works: Mapping[torch.dtype, Sequence[Work]],
    study: Study,
    dtypes: tuple[torch.dtype, torch.dtype],
    device: torch.device,
) -> dict[str, int]:
    """Return what is held -> bytes, the largest at a time last.

    A process is in one step at a time, and a step frees what it held: finding directions (a copy of the weights in the
    dtype of the directions), gradients of that copy's weights before training, gradients of the frozen model (with
    every direction that they are measured along), a training step, or responses (keys and values, and the adapters of
    the runs that are evaluated together).

    Args:
        shapes: of the model.
        works: dtype -> the work that is done in it, of every kind of step.
        study: what would be computed.
        dtypes: of the model, and of the copy in which directions are found.
        device: where it would be computed.
    """
    held, copy = (dtype.itemsize for dtype in dtypes)
    training, settings = shapes.training, study.training
    longest, of_exact = (
        {kind: max((each.longest for each in works[dtype] if each.backward == kind), default=0) for kind in PASSES}
        for dtype in dtypes
    )
    block = training.token // shapes.layers  # without gradients one block's activations are there at a time
    runs = min(settings.together, len(study.runs))
    token = training.checkpointed_token if settings.gradient_checkpointing else training.token
    trait = find_trait(study.trait)
    along = len(trait.contrasts) + 1 + len(trait.unrelated) + sum(study.nulls.draws.values())  # one from responses
    evaluated = sum(seed == study.seeds[0] for _, seed in study.runs)
    adapters = evaluated * training.adapter // OF_ADAPTER * FLOAT32
    of_weights = (
        (ON_HOST if device.type == "cpu" else 1) * shapes.layers * sum(into * out for into, out in shapes.block) * copy
    )
    found = {
        "weights": training.weights,
        "weights while directions are found": shapes.weights * copy if copy != held else 0,
        "gradients of the weights before training": of_weights if study.attribution.questions else 0,
        "activations of the largest pass for these": int(BACKWARD * of_exact[TRAIN] * training.token * copy / held),
        "adapter in training, with gradients and Adam": runs * training.adapter,
        "activations of the longest training step": int(BACKWARD * runs * longest[TRAIN] * token),
        "activations of the largest pass for gradients of the frozen model": int(
            BACKWARD * longest[LEARN] * training.token
        ),
        "directions that gradients of the frozen model are measured along": (
            along * shapes.layers * shapes.width * FLOAT32
        ),
        "activations of the largest pass without gradients": (
            max(longest[READ] * block, of_exact[READ] * block * copy // held)
        ),
        "keys and values of the largest batch of responses": (
            max(work.cached for work in chain(*works.values())) * shapes.cache * shapes.layers * held
        ),
        "adapters evaluated together": adapters,
        "logits of a chunk": CHUNK * (shapes.head // shapes.width) * (held + FLOAT32),
    }
    of_copy, of_kernel, of_pass, adapter, *rest = list(found.values())[1:]
    of_training, of_frozen, rows, reading, cache, stacked, logits = rest
    largest = max(
        training.weights + of_copy + max(reading, of_kernel + of_pass),
        training.weights + adapter + of_training + logits,
        training.weights + rows + max(of_frozen + logits, rows),  # kinds of directions are drawn, then joined
        training.weights + stacked + cache + reading + logits,
    )
    return {**{what: size for what, size in found.items() if size}, TOTAL: largest + LIBRARIES}
