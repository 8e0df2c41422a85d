"""What the CUDA job asks beside training steps: do the numbers agree, does a step wait, how much memory is needed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from serving import serve
from shapes import shaped_model
from torch import Tensor

from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast import completion_losses, fused_adapter
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.kernels import CHUNK
from gradinoc.measure.fast.packed.packing import pack
from gradinoc.measure.gradients.alignment import measure_alignments
from gradinoc.measure.training.adapters import lora_config
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.chat.encoding import Encoded
from gradinoc.study.settings import TrainingSettings

LAYERS, BATCH = 2, 4


def examples(count: int, tokens: int, vocabulary: int = 100_000) -> list[Encoded]:
    """Texts of random tokens, a third of them prompt."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(100, min(vocabulary, 100_000), (count, tokens), generator=generator).tolist()
    return [Encoded(tuple(row), tokens // 3 + place % BATCH) for place, row in enumerate(rows)]


def fuse_packed(model: Any, shape: str) -> None:
    """Put the kernels into `model`.

    Raises:
        RuntimeError: they are refused.
    """
    if not fuse(model)[0].endswith("packed"):
        raise RuntimeError(f"A model of the shape of {shape} was not fused on {model.device.type}")


def deviations(shape: str, device: str = "cuda") -> dict[str, float]:
    """Largest difference of alignments and relative difference of losses from the CPU's plain float32, by dtype.

    Of a model of the shape, but of two layers.
    """
    reference = shaped_model(shape, torch.float32, "cpu", LAYERS)
    hidden = reference.config.hidden_size
    directions = dict.fromkeys(range(LAYERS), isotropic_directions(101, hidden, 0))
    texts = examples(BATCH, 60, reference.config.vocab_size)
    expected = measure_alignments(reference, texts, directions, 0).table
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = shaped_model(shape, dtype, "cpu", LAYERS).to(device)
        model.load_state_dict(reference.state_dict())
        fuse_packed(model, shape)
        table = measure_alignments(model, texts, directions, 0).table
        name = str(dtype).removeprefix("torch.")
        found[f"alignments, {name}"] = float((table["alignment"] - expected["alignment"]).abs().max())
        found[f"losses, {name}"] = float((table["loss"] / expected["loss"] - 1).abs().max())
    return found


def waits(shape: str, steps: int = 6) -> int:
    """How many more times the host waits for the device in a run of 2 * `steps` than in one of `steps`."""
    model = shaped_model(shape, torch.bfloat16, "cuda", LAYERS)
    fuse(model)
    directions = dict.fromkeys(range(LAYERS), isotropic_directions(101, model.config.hidden_size, 0))
    counts = []
    for count in (steps, 2 * steps):
        settings = TrainingSettings(steps=count, batch_size=BATCH, lr=1e-4, lora_rank=16, lora_alpha=32)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                texts = examples(2 * steps * BATCH, 60)
                train_run(model, texts, Recipe(settings, directions, 0), 0, Path(folder))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(warning.message).lower() for warning in caught))
    return counts[1] - counts[0]


def needed(shape: str, tokens: int, batch_size: int) -> dict[str, int]:
    """Bytes of a training step with everything kept: weights, adapter with its optimiser, activations, logits.

    Computed from a model without numbers, whose graph is built and whose saved tensors are counted, each storage once.
    """
    model = shaped_model(shape, torch.bfloat16, "meta")
    weights = _bytes(model.parameters())
    fuse(model, trial=False)
    settings = TrainingSettings(steps=1, batch_size=batch_size, lora_rank=16, lora_alpha=32)
    wrapped = get_peft_model(model, lora_config(model, settings))
    adapter = [weight for weight in wrapped.parameters() if weight.requires_grad]
    batch = pack(examples(batch_size, tokens, model.config.vocab_size)).to(torch.device("meta"))
    with fused_adapter(wrapped), _saved() as saved:
        completion_losses(wrapped, batch)
    own = {weight.untyped_storage()._cdata for weight in wrapped.parameters()}
    kept = sum(size for storage, size in saved.items() if storage not in own)
    chunk = CHUNK * model.config.vocab_size * (2 + 4)
    return {
        "weights": weights,
        "adapter, its gradient and two moments, float32": 4 * sum(4 * weight.numel() for weight in adapter),
        "activations": kept,
        "logits of a chunk": chunk,
    }


@contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Storage -> bytes of every tensor that autograd keeps inside the block."""
    sizes: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        alive.append(tensor)  # or a storage freed in between would lend its place to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


if __name__ == "__main__":
    serve({"deviations": deviations, "waits": waits, "needed": needed})
