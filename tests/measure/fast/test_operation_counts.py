"""What the work amounts to, counted in operations: a guard against slowness that no busy machine can disturb."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS, PAD, VOCABULARY, letter_tokenizer, with_lora
from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast import batched, completion_losses, fused_adapter, stacked_adapters
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.packed import packing
from gradinoc.measure.gradients.alignment import GradientLogger, answer_losses
from gradinoc.measure.passes.hooks import ActivationCollector
from gradinoc.measure.training import trainer
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import generate_copies
from gradinoc.study.settings import TrainingSettings

EVERY = list(range(LAYERS))


class Counted(TorchDispatchMode):
    """Operations by name, rows of vocabulary products, values fetched by the host."""

    def __init__(self, model):
        super().__init__()
        self.operations, self.vocabulary_rows = Counter(), 0
        self.head = model.get_output_embeddings().weight.untyped_storage().data_ptr()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Count, and go on."""
        name = function.overloadpacket.__name__
        self.operations[name] += 1
        result = function(*args, **(kwargs or {}))
        if (
            name == "mm"
            and VOCABULARY in result.shape
            and self.head in {each.untyped_storage().data_ptr() for each in args}
        ):
            self.vocabulary_rows += result.numel() // VOCABULARY
        return result

    @property
    def products(self):
        """Matrix products of all kinds."""
        return sum(self.operations[name] for name in ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_"))


@pytest.fixture
def model():
    """A small fused model, frozen."""
    model = ARCHITECTURES["qwen3"]().requires_grad_(False)
    fuse(model)
    return model


@contextmanager
def passes(model):
    """Calls of each decoder block inside the block."""
    calls = Counter()
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: calls.update([layer]))
        for layer, block in enumerate(decoder_blocks(model))
    ]
    yield calls
    for handle in handles:
        handle.remove()


def rows(count):
    """Unit vectors for every layer."""
    return dict.fromkeys(EVERY, isotropic_directions(count, HIDDEN, 0))


def step(model, examples, directions):
    """What one logged (or, without directions, plain) training step of an adapted model amounts to."""
    wrapped = with_lora(model)
    with fused_adapter(wrapped), GradientLogger(wrapped, directions) if directions else nullcontext() as logger:
        batch = batched(wrapped, examples, PAD)
        with Counted(model) as counted:
            if logger:
                logger.expect(batch, scale=1.0)
            completion_losses(wrapped, batch).mean().backward()
            if logger:
                logger.read()
    wrapped.unload()
    return counted


def test_a_thousand_directions_are_as_many_operations_as_one(model, examples):
    """They are the rows of one matrix: one product a layer, whatever their number."""
    one, many = (step(model, examples, rows(count)).operations for count in (1, 1001))
    assert one == many


def test_logging_is_one_product_a_layer(model, examples):
    """Beside it a few operations on rows of the batch's size; nothing as long as the sequence but one gather."""
    plain, logged = step(model, examples, {}), step(model, examples, rows(101))
    assert logged.products - plain.products == LAYERS
    more = sum((logged.operations - plain.operations).values())
    assert more <= 25 * LAYERS + 10, logged.operations - plain.operations


def test_only_tokens_to_be_predicted_meet_the_vocabulary(model, examples):
    """Logits exist for completion tokens: not for prompts, not for padding, not twice."""
    completion = sum(len(example.ids) - example.prompt_length for example in examples)
    assert step(model, examples, rows(3)).vocabulary_rows == completion
    with Counted(model) as counted:
        answer_losses(model, examples, PAD, len(examples))
    assert counted.vocabulary_rows == completion


def test_nothing_is_padded(model, examples):
    """Every linear map sees the batch's own tokens and no others."""
    tokens, seen = sum(len(example.ids) for example in examples), set()
    layer = decoder_blocks(model)[0].mlp.gate_proj
    layer.register_forward_hook(lambda _module, given, _output: seen.add(given[0].shape[:-1].numel()))
    answer_losses(model, examples, PAD, len(examples))
    assert seen == {tokens}


def test_a_step_never_waits_for_the_device(model, examples, tmp_path, monkeypatch):
    """No value is fetched between two steps: twice the steps, as many fetches, where fetching means to wait."""
    monkeypatch.setattr(trainer, "AT_ONCE", ())
    monkeypatch.setattr(trainer, "EVERY_SECONDS", 3600.0)
    fetched = []
    for steps in (3, 6):
        settings = TrainingSettings(steps=steps, batch_size=2, lora_rank=4, lora_alpha=8)
        with Counted(model) as counted:
            train_run(model, examples, Recipe(settings, rows(5), PAD), 0, tmp_path / str(steps))
        readings = counted.operations["_local_scalar_dense"] + counted.operations["item"]
        fetched.append(readings)
    assert fetched[0] == fetched[1], f"values fetched in 3 and in 6 steps: {fetched}"


def test_beginnings_are_computed_once(model, monkeypatch):
    """Of two answers to one question the blocks see the question once; of many questions their system prompt."""
    monkeypatch.setattr(packing, "SHARED_FROM", 4)
    prompt, seen = tuple(range(5, 15)), []
    examples = [Encoded((*prompt, *answer), len(prompt)) for answer in ((20, 21), (22, 23, 24), (25,))]
    handle = decoder_blocks(model)[0].register_forward_hook(
        lambda _block, inputs, _out: seen.append(inputs[0].shape[1])
    )
    answer_losses(model, examples, PAD, len(examples))
    with ActivationCollector(model, [0]) as collector:
        collector.get_activations(torch.tensor([[*prompt, last] for last in (20, 22, 25)]), "last_prompt_token")
    handle.remove()
    assert seen == [10 + 2 + 3 + 1, 10 + 3]


def test_adapters_are_evaluated_in_one_pass(model, examples):
    """Five take as many forward passes as one, for losses, activations and texts."""
    wrapped = with_lora(model)
    counts = []
    for names in (["default"], ["default", "", "default", "", "default"]):
        with stacked_adapters(wrapped, names), passes(wrapped) as calls:
            copies = len(names)
            answer_losses(wrapped, examples, PAD, 2, copies)
            prompt_activations(wrapped, letter_tokenizer(), ["one", "two"], None, EVERY, copies=copies)
            generate_copies(wrapped, letter_tokenizer(), [[7, 8], [9]], 4, 2, copies)
            counts.append(calls[0])
    assert counts[0] == counts[1] == 3 + 1 + 4
