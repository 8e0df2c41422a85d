"""What a token needs in training is estimated as autograd holds it."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from fixtures.small_models import ARCHITECTURES, with_lora
from gradinoc.measure.fast import batched, completion_losses, fused_adapter
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.adapters import lora_config
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.memory import (
    training_memory,
)
from gradinoc.study.settings import TrainingSettings


def held_by_autograd(model, tokens: int, pad: int) -> int:
    """Bytes that autograd keeps of one example for its backward pass, weights left out: an independent count."""
    storages: dict[int, int] = {}
    alive = []
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # else its address might be given to another
        return tensor

    example = Encoded(tuple(5 + token % 50 for token in range(tokens)), tokens - 2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        completion_losses(model, batched(model, [example], pad)).mean()
    return sum(storages.values())


@pytest.mark.parametrize(("kernels", "dtype"), [("fused", "float32"), ("plain", "bfloat16")])
def test_estimate_of_a_token_is_what_autograd_holds(kernels, dtype):
    """Within a quarter, on a real architecture; more tokens minus fewer, so that what does not grow drops out."""
    language_model = load_model("obedient", device="cpu", dtype=dtype, kernels=kernels)
    model = get_peft_model(language_model.model, lora_config(language_model.model, TrainingSettings()))
    pad = language_model.tokenizer.pad_token_id
    with fused_adapter(model.train()):
        measured = (held_by_autograd(model, 140, pad) - held_by_autograd(model, 40, pad)) / 100
        estimate = training_memory(model, fused=kernels == "fused")
    assert 0.75 < estimate.token / measured < 1.25
    assert estimate.checkpointed_token < estimate.token / 2
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    assert estimate.weights == frozen


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_only_what_a_gate_gives_is_taken_to_be_made_anew(name):
    """Of a fused model without one the input of the widest map is held, and counted."""
    model = ARCHITECTURES[name]().requires_grad_(False)
    assert fuse(model)[0].endswith("packed")
    wrapped = with_lora(model)
    with fused_adapter(wrapped.train()):
        measured = (held_by_autograd(wrapped, 44, 0) - held_by_autograd(wrapped, 14, 0)) / 30
    estimate, plain = (training_memory(wrapped, fused=fused).token for fused in (True, False))
    assert (estimate < plain) == (name == "llama")
    assert 0.7 < estimate / measured < 1.3
