"""Where memory does not suffice, what can be done in smaller batches goes on, and what cannot says what would fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

from gradinoc.data.sources import load_source
from gradinoc.data.splits import split
from gradinoc.errors import OutOfMemoryError
from gradinoc.measure.directions.extraction import BATCH, prompt_activations
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.gradients import alignment as gradients
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode
from gradinoc.models.generate import generate
from gradinoc.models.machine.memory import (
    GIB,
    TrainingMemory,
    in_batches,
    is_out_of_memory,
    what_would_fit,
)
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.loading import load_study
from gradinoc.study.settings import TrainingSettings

FAMILY = "Memory"
COUNT = 7


@pytest.fixture(scope="module", params=["fused", "plain"])
def model(request):
    """The obedient tiny model with either kernels."""
    return load_model("obedient", device="cpu", kernels=request.param)


def encoded(language_model):
    """A few word problems with answers in capitals."""
    tokenizer = language_model.tokenizer
    return [encode(tokenizer, e.question, e.answer.upper()) for e in load_source("word_problems")[:COUNT]]


@contextmanager
def small_memory(language_model, tokens: int) -> Iterator[list[int]]:
    """A device on which no block takes more than so many tokens at once; tokens of each pass that was tried."""
    tried = []

    def hook(_block, inputs, named):
        hidden = inputs[0] if inputs else named["hidden_states"]
        tried.append(hidden.shape[0] * hidden.shape[1])
        if tried[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    handle = decoder_blocks(language_model.model)[-1].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield tried
    finally:
        handle.remove()


# --- what is taken for a lack of memory


def test_processors_own_refusal_is_recognised():
    """Not a made-up message: torch is asked for more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1 GB)"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Invalid buffer size: 30.00 GiB"), True),
        (MemoryError(), True),
        (OutOfMemoryError("explained already"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
    ids=repr,
)
def test_lack_of_memory_is_told_from_other_errors(error, expected):
    """As CUDA and Apple's MPS word it; anything else is raised as it is."""
    assert is_out_of_memory(error) is expected


# --- batches that shrink


@pytest.mark.parametrize("fitting", [1, 3, 8])
def test_every_row_is_done_once_and_in_order(fitting, caplog):
    """Whatever fits: a batch that fails leaves nothing, and later ones are no larger than what did."""
    done, refused = [], []

    def work(rows):
        if len(rows) > fitting:
            refused.append(len(rows))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        done.append(list(rows))

    with caplog.at_level(logging.WARNING, logger="gradinoc.models.machine.memory"):
        in_batches(range(20), 8, work)
    assert [row for rows in done for row in rows] == list(range(20))
    assert max(map(len, done)) <= fitting
    assert refused == [size for size in (8, 4, 2) if size > fitting]
    assert bool(caplog.messages) == (fitting < 8)


@pytest.mark.fault(FAMILY, "no memory for a single example")
def test_single_example_that_does_not_fit_stops():
    """With what may help, in one line."""

    def work(_rows):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(
        OutOfMemoryError, match=r"^Out of memory with a batch of one \(row 3\): .*model\.dtype=bfloat16"
    ):
        in_batches([3, 4, 5, 6], 4, work)


@pytest.mark.fault(FAMILY, "no memory for a batch of evaluation or extraction")
@pytest.mark.parametrize("measure", ["directions", "alignments", "losses", "responses"])
def test_smaller_batches_give_the_same_numbers(model, measure):
    """Room for two or three examples in place of all: the work goes on, and in float32 says the same."""
    examples, pad = encoded(model), model.tokenizer.pad_token_id
    prompts = [e.question for e in load_source("word_problems")[:COUNT]]
    layers = list(range(len(decoder_blocks(model.model))))
    axes = dict.fromkeys(layers, isotropic_directions(2, model.model.config.hidden_size, 0))
    work = {
        "directions": lambda: prompt_activations(model.model, model.tokenizer, prompts, None, layers),
        "alignments": lambda: measure_alignments(model.model, examples, axes, pad, COUNT).table,
        "losses": lambda: answer_losses(model.model, examples, pad, COUNT),
        "responses": lambda: generate(model.model, model.tokenizer, [e.prompt for e in examples], 5, COUNT),
    }[measure]
    whole = work()
    with small_memory(model, 10**9) as tried:
        work()
    most = max(tried)
    room = 3 * most // 5
    with small_memory(model, room) as tried:
        again = work()
    assert tried[0] > room, "the whole batch was tried"
    assert min(tried) <= room
    if measure == "directions":
        assert COUNT <= BATCH
        for layer in layers:
            torch.testing.assert_close(again[layer], whole[layer], rtol=1e-5, atol=1e-5)
    elif measure == "responses":
        assert again == whole
    elif measure == "losses":
        np.testing.assert_allclose(again, whole, rtol=1e-5)
    else:
        pd.testing.assert_frame_equal(again, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.fault(FAMILY, "no memory left after a backward pass, amid its reading")
def test_batch_that_fails_late_leaves_nothing(model, monkeypatch):
    """No row twice: what a batch adds to is added when nothing more can fail."""
    examples, pad = encoded(model), model.tokenizer.pad_token_id
    layers = range(len(decoder_blocks(model.model)))
    axes = dict.fromkeys(layers, isotropic_directions(2, model.model.config.hidden_size, 0))
    whole, frame, calls = measure_alignments(model.model, examples, axes, pad, 4), gradients.alignment_frame, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return frame(*arguments)

    monkeypatch.setattr(gradients, "alignment_frame", failing)
    again = measure_alignments(model.model, examples, axes, pad, 4)
    pd.testing.assert_frame_equal(again.table, whole.table, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(again.means, whole.means, rtol=1e-3, atol=1e-6)
    assert not again.by_example.isnan().any()


# --- training


@pytest.mark.fault(FAMILY, "no memory for the optimiser's first step")
def test_optimiser_without_memory_says_what_would_fit(model, tmp_path, monkeypatch):
    """Adam's moments are allocated after the backward pass."""

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    recipe = Recipe(TrainingSettings(steps=2, batch_size=3, lora_rank=2), {}, model.tokenizer.pad_token_id)
    with pytest.raises(OutOfMemoryError, match=r"^Out of memory in step 1 of 2: 3 examples of \d+ tokens need about"):
        train_run(model.model, encoded(model), recipe, 0, tmp_path)


@pytest.mark.fault(FAMILY, "no memory for a training step")
def test_training_says_what_would_fit(model, tmp_path):
    """The run stops, with the step and the arithmetic; the model is handed back as it came."""
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    axes = dict.fromkeys(range(2), isotropic_directions(2, model.model.config.hidden_size, 0))
    recipe = Recipe(TrainingSettings(steps=3, batch_size=3, lora_rank=2), axes, model.tokenizer.pad_token_id)
    with small_memory(model, 20), pytest.raises(OutOfMemoryError) as caught:
        train_run(model.model, encoded(model), recipe, 0, tmp_path)
    said = str(caught.value)
    assert re.match(r"Out of memory in step 1 of 3: 3 examples of \d+ tokens need about 0\.\d\d GiB", said), said
    assert "would fit" in said
    assert "\n" not in said
    assert caught.value.__cause__ is None, "what the step held would stay"
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())
    assert not any(weight.requires_grad for weight in model.model.parameters())


@pytest.mark.fault(FAMILY, "no memory for a model's weights")
@pytest.mark.parametrize(("dtype", "advice"), [("float32", True), ("bfloat16", False)])
def test_loading_says_what_may_help(monkeypatch, dtype, advice):
    """A copy in float32 in which directions are found can be done without; a traceback helps nobody."""

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("gradinoc.pipeline.context.load_model", fail)
    study = load_study("tiny", ["model.dtype=bfloat16"])
    with pytest.raises(OutOfMemoryError, match=r"^Out of memory while loading 'obedient' in") as caught:
        StudyContext(study, split(study.data))._load(dtype)
    assert ("model.extraction_dtype=auto" in str(caught.value)) == advice


TOKENS = TrainingMemory(weights=2 * GIB, adapter=GIB, token=GIB // 100, checkpointed_token=GIB // 1000)


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        (8, r"training\.batch_size=2 or training\.gradient_checkpointing=true would fit$"),
        (4.5, r"; training\.gradient_checkpointing=true would fit$"),
        (2, r"no batch size fits: use a smaller model$"),
    ],
)
def test_advice_follows_from_the_arithmetic(model, monkeypatch, there, advice):
    """Four examples of at most 200 tokens; 90 % of the memory can be used, 3 GiB of it is taken."""
    monkeypatch.setattr("gradinoc.models.machine.memory.training_memory", lambda *_: TOKENS)
    monkeypatch.setattr("gradinoc.models.machine.memory.capacity", lambda _device: int(there * GIB))
    said = what_would_fit(model.model, [180, 150, 170, 200], 200)
    assert said.startswith("4 examples of 700 tokens need about 10.00 GiB")
    assert re.search(advice, said), said
