"""A number that is not finite stops the work where it arises, named by step, layer and example."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from fixtures.complaints import complaint as one_line
from gradinoc.data.sources import load_source
from gradinoc.errors import NumericalError
from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.loading.load import LanguageModel, load_model
from gradinoc.measure.training import trainer
from gradinoc.measure.training.adapters import save_adapter
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode, encode_prompt
from gradinoc.models.generate import generate
from gradinoc.study.settings import TrainingSettings

FAMILY = "Numerical faults"
COUNT, STEPS, BATCH = 6, 4, 2


@pytest.fixture(scope="module", params=["fused", "plain"])
def model(request) -> LanguageModel:
    """The obedient tiny model with either kernels; each test hands it back as it came."""
    return load_model("obedient", device="cpu", kernels=request.param)


@pytest.fixture(scope="module")
def fused() -> LanguageModel:
    """The obedient tiny model as a study has it."""
    return load_model("obedient", device="cpu")


@pytest.fixture
def seldom(monkeypatch):
    """As on CUDA: numbers are fetched now and then, here not before the end."""
    monkeypatch.setattr(trainer, "AT_ONCE", ())
    monkeypatch.setattr(trainer, "EVERY_SECONDS", 3600.0)


def encoded(language_model):
    """A few word problems with answers in capitals, ordered by length: the first of a batch is the first of them."""
    tokenizer = language_model.tokenizer
    found = [encode(tokenizer, e.question, e.answer.upper()) for e in load_source("word_problems")[:COUNT]]
    return sorted(found, key=lambda example: len(example.ids))


def directions(language_model):
    """Two directions a layer."""
    found = isotropic_directions(2, language_model.model.config.hidden_size, 0)
    return dict.fromkeys(range(len(decoder_blocks(language_model.model))), found)


@contextmanager
def poisoned(language_model, layer: int, call: int, poison: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """The output of a decoder block is put through `poison` from the `call`-th forward pass on, counted from 0.

    Later passes too: where a message looks for the origin, it computes once more.
    """
    seen = 0

    def hook(_block, _inputs, output):
        nonlocal seen
        seen += 1
        if seen <= call:
            return output
        return (poison(output[0]), *output[1:]) if isinstance(output, tuple) else poison(output)

    handle = decoder_blocks(language_model.model)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def first_token(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sets the first token of the first example to `value`: causal attention carries it through that example alone."""

    def poison(hidden):
        changed = hidden.clone()
        changed[0, 0] = value
        return changed

    return poison


def gradient(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Leaves the activation alone, and multiplies its gradient."""

    def poison(hidden):
        changed = hidden.clone()
        if changed.requires_grad:
            changed.register_hook(lambda grad: grad * value)
        return changed

    return poison


def recipe(language_model, **settings):
    """A run of a few steps; `settings` are not checked."""
    settings = TrainingSettings(steps=STEPS, batch_size=BATCH, lora_rank=2).model_copy(update=settings)
    return Recipe(settings, directions(language_model), language_model.tokenizer.pad_token_id)


def train(language_model, folder, **settings):
    """The run, which is to fail."""
    made = recipe(language_model, **settings)
    return train_run(language_model.model, encoded(language_model), made, 0, folder / "adapter")


complaint = partial(one_line, NumericalError)


# --- training


def in_training(kind: str, poison: Callable[[torch.Tensor], torch.Tensor], said: str):
    """A case: a kind of fault at layer 2, and what is said of it."""
    return pytest.param(poison, said, marks=pytest.mark.fault(FAMILY, kind), id=kind)


TRAINING = [
    in_training(
        "NaN or infinity in an activation during training", first_token(math.inf),
        r"the loss of example \d is nan, first not finite in the output of layer 2",
    ),
    in_training(
        "NaN or infinity in a gradient of the residual stream during training", gradient(math.nan),
        r"the gradient at layer 2, \w+, of examples \d, \d is not finite",
    ),
    in_training(
        "a gradient of the residual stream that is zero", gradient(0.0),
        r"the gradient at layer 2, \w+, of examples \d, \d is zero, which has no direction",
    ),
]  # fmt: skip


@pytest.mark.parametrize("step", [0, STEPS - 1])
@pytest.mark.parametrize(("poison", "what"), TRAINING)
def test_fault_in_training_names_step_layer_and_examples(model, tmp_path, poison, what, step):
    """The run stops in that very step; no adapter is left, and the model is handed back as it came."""
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    with poisoned(model, 2, step, poison):
        said = complaint(lambda: train(model, tmp_path))
    assert re.match(rf"Step {step + 1} of 4: {what}", said), said
    assert ("the run diverged" in said) == (step > 0)
    assert list((tmp_path / "adapter").iterdir()) == []
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


@pytest.mark.fault(FAMILY, "NaN or infinity in the gradient of an adapter's weight")
def test_gradient_of_the_adapter_stops_the_step(model, tmp_path):
    """Clipping would make every weight NaN: nothing is learned from it, in the last step neither."""

    def spoil(hidden):
        weights = [w for w in decoder_blocks(model.model)[1].parameters() if w.requires_grad]
        weights[0].register_hook(lambda grad: grad * math.inf)
        return hidden

    with poisoned(model, 1, STEPS - 1, spoil):
        said = complaint(lambda: train(model, tmp_path))
    assert re.match(r"Step 4 of 4: the gradient of the adapter's weights after examples \d, \d is not", said)


@pytest.mark.fault(FAMILY, "NaN in training on a device that numbers are fetched from now and then")
@pytest.mark.parametrize(("poison", "what"), TRAINING[:2])
def test_fault_that_is_seen_later_names_its_step(fused, tmp_path, seldom, poison, what):
    """The step that is named is the one in which it arose."""
    with poisoned(fused, 2, 1, poison):
        said = complaint(lambda: train(fused, tmp_path))
    assert re.match(rf"Step 2 of 4: {what.partition(',')[0]}", said), said


@pytest.mark.fault(FAMILY, "a checkpoint after a step whose numbers failed unseen")
def test_checkpoint_is_not_taken_of_a_failed_step(fused, tmp_path, seldom):
    """The step is named, not the adapter that came of it."""
    checkpoints = {3: tmp_path / "b"}
    with poisoned(fused, 1, 1, first_token(math.nan)):
        said = complaint(
            lambda: train_run(fused.model, encoded(fused), recipe(fused), 0, tmp_path / "a", checkpoints=checkpoints)
        )
    assert said.startswith("Step 2 of 4: the loss of example ")
    assert not (tmp_path / "b").exists()


@pytest.mark.fault(FAMILY, "an adapter with a weight that is not finite")
def test_adapter_that_is_not_finite_is_never_written(tmp_path):
    """Neither at the end nor at a checkpoint: what is in the store can be loaded and gives numbers."""
    stub = torch.nn.Module()
    stub.lora_A = torch.nn.ParameterDict({"default": torch.tensor([0.0, math.inf])})
    stub.save_pretrained = lambda _: pytest.fail("written")
    said = complaint(lambda: save_adapter(stub, tmp_path / "3"))
    assert said.startswith("The adapter for '3' is not finite in 1 of its weights (lora_A.default first)")


@pytest.mark.fault(FAMILY, "a direction that is not finite")
@pytest.mark.parametrize(("row", "said_of"), [(0, "an alignment at layer 2"), (1, "an alignment with a random one")])
def test_direction_that_is_not_finite_is_noticed(fused, tmp_path, row, said_of):
    """Its alignment would be NaN with every gradient."""
    made = recipe(fused)
    axes = {layer: rows.clone() for layer, rows in made.directions.items()}
    axes[2][row, 5] = math.nan
    made = dataclasses.replace(made, directions=axes)
    said = complaint(lambda: train_run(fused.model, encoded(fused), made, 0, tmp_path))
    assert said.startswith(f"Step 1 of 4: {said_of} is not finite")


@pytest.mark.fault(FAMILY, "a run that diverges by its learning rate")
def test_diverging_run_says_so_and_what_to_do(fused, tmp_path):
    """A rate beyond all measure: the first step is sound, the next is not."""
    said = complaint(lambda: train(fused, tmp_path, lr=1e38))
    assert said.startswith("Step 2 of 4: the loss of examples ")
    assert "lower training.lr (1e+38)" in said


# --- the frozen model

PROMPTS = ["What is 7?", "What is 8888?", "What is 99999999 and 4?"]
# Layer and forward pass that are poisoned, how, what is measured, kind of fault, what is said. Batches are of two,
# padded ones by length, packed ones by their tokens and in two passes each.
FROZEN = [
    (2, 1, first_token(math.inf), "losses", "an activation of the frozen model",
     r"the loss of examples? \d.* is nan, first not finite in the output of layer 2"),
    (2, 1, first_token(math.inf), "alignments", "an activation of the frozen model",
     "the loss of example [21] is nan, first not finite in the output of layer 2"),
    (2, 2, gradient(math.inf), "alignments", "a gradient of the frozen model",
     r"the gradient at layer 2, \w+, of examples (4, 5|2, 3) is not finite"),
    (3, 0, lambda hidden: hidden * math.nan, "activations", "the activation from which a direction is found",
     r"the activation at layer 3 of prompts [\d, ]+ is not finite"),
    (3, 2, first_token(math.nan), "responses", "the logits of a response",
     r"Logits are not finite in responses to prompts \[\d\]"),
]  # fmt: skip
FROZEN_CASES = [
    pytest.param(*case, what, marks=pytest.mark.fault(FAMILY, f"NaN or infinity in {kind}"), id=f"{case[3]}, {kind}")
    for *case, kind, what in FROZEN
]


@pytest.mark.parametrize(("layer", "call", "poison", "measured", "what"), FROZEN_CASES)
def test_fault_in_the_frozen_model_names_layer_and_examples(model, layer, call, poison, measured, what):
    """Whatever is measured: a mean would be NaN, a response nonsense that could be scored."""
    network, tokenizer, examples = model.model, model.tokenizer, encoded(model)
    pad, layers = tokenizer.pad_token_id, list(range(len(decoder_blocks(network))))
    work = {
        "losses": lambda: answer_losses(network, examples, pad, BATCH),
        "alignments": lambda: measure_alignments(network, examples, directions(model), pad, BATCH),
        "activations": lambda: prompt_activations(network, tokenizer, PROMPTS, None, layers),
        "responses": lambda: generate(network, tokenizer, [encode_prompt(tokenizer, p, None) for p in PROMPTS], 6, 3),
    }[measured]
    with poisoned(model, layer, call, poison):
        said = complaint(work)
    assert re.match(what, said), said
