"""What a device's memory allows: batches that shrink until they fit, and the need of a training step."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import PreTrainedConfig

from gradinoc.errors import OutOfMemoryError
from gradinoc.models.adapters import map_shapes
from gradinoc.models.blocks import decoder_blocks, is_swiglu, unwrapped

GIB = 2**30
# Phrases of CUDA, cuDNN and Metal that the libraries do not look for.
PHRASES = (
    "CUDA error: out of memory", "CUDA driver error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED", "Invalid buffer size", "Failed to allocate private MTLBuffer",
)  # fmt: skip
OF_ADAPTER = 16  # bytes an adapter's weight: itself, its gradient, Adam's two moments, all float32
OF_STATE = 6  # hidden states that a block holds of a token: norms and what they read, inputs of attention, residuals
SHARE = 0.9  # of a device's memory: the rest goes to the backward pass itself and is lost between allocations

logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a device, CUDA's, Apple's or the CPU, has no memory left."""
    if isinstance(error, OutOfMemoryError):  # one that has been explained
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, Exception) and (
        should_reduce_batch_size(error)
        or (isinstance(error, RuntimeError) and any(phrase in text for phrase in PHRASES))
    )


def release() -> None:
    """Free reference cycles, and hand what is not used back to the device and to the system, for other workers there.

    glibc keeps what was freed between pieces that are still used: after gradients and drift of SmolLM2 that is more
    than the model.
    """
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl's heap has no such function, and needs none
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def in_batches(rows: Sequence[int], size: int, work: Callable[[Sequence[int]], None]) -> None:
    """Hand `rows` to `work` in order, `size` at a time; a batch that memory does not suffice for is halved.

    So are all batches after it. `work` must leave nothing behind when it fails. In half precision results depend in
    their last digits on how examples share a batch, so that a warning is logged.

    Raises:
        OutOfMemoryError: memory does not suffice for a single one.
    """
    start = 0
    while start < len(rows):
        chosen = rows[start : start + size]
        if _fits(work, chosen):
            start += len(chosen)
            continue
        if len(chosen) == 1:
            raise OutOfMemoryError(
                f"Out of memory with a batch of one (row {chosen[0]}): nothing smaller can be tried; use a smaller "
                "model, model.dtype=bfloat16, shorter answers (data.max_answer_chars), or a device with more memory"
            )
        size = len(chosen) // 2
        release()
        logger.warning("Out of memory with a batch of %d: going on with %d", len(chosen), size)


def _fits(work: Callable[[Sequence[int]], None], rows: Sequence[int]) -> bool:
    """Whether `work` came to its end; what it held is free again when this returns."""
    try:
        work(rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


@dataclass(frozen=True)
class TrainingMemory:
    """What a training step needs, in bytes: the frozen weights, the adapter with all that goes with it, a token."""

    weights: int
    adapter: int
    token: int
    checkpointed_token: int

    def needed(self, tokens: int) -> int:
        """Bytes of a step on so many tokens, without gradient checkpointing."""
        return self.weights + self.adapter + tokens * self.token

    def fitting(self, capacity: int, token: int | None = None) -> int:
        """How many tokens fit into `capacity` bytes."""
        free = int(capacity * SHARE) - self.weights - self.adapter
        return max(0, free // (token or self.token))


def training_memory(model: nn.Module, fused: bool = False) -> TrainingMemory:
    """An estimate for `model`, with its adapter in place, from the shapes of its linear maps.

    A block holds what its linear maps put out, the input of the widest, and a few hidden states; in half precision
    PEFT's own modules, unless they are `fused`, hold float32 copies besides. What a fused gate gives is made anew. With
    gradient checkpointing it is one hidden state a block, and one block whole. Logits, which are there a few at a time,
    are left out.
    """
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    blocks, size = decoder_blocks(model), next(model.parameters()).element_size()
    config: Any = unwrapped(model).config
    text = config.get_text_config()
    state = size * int(text.hidden_size)
    copies = 1 if size == 4 or fused else 2
    held = [copies * (size * _elements(block, text, fused) + OF_STATE * state) for block in blocks]
    return TrainingMemory(frozen, OF_ADAPTER * trained, sum(held), state * len(blocks) + max(held))


def _elements(block: nn.Module, config: PreTrainedConfig, fused: bool) -> int:
    """Numbers of a token that the linear maps of a block put out, and the widest takes in, unless it is made anew."""
    shapes = map_shapes(block, config)
    anew = fused and any(map(is_swiglu, block.modules()))
    return sum(out for _, out in shapes) + (0 if anew else max((into for into, _ in shapes), default=0))


def capacity(device: torch.device) -> int:
    """Bytes of the device's memory that this process has or can have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def what_would_fit(model: nn.Module, lengths: Sequence[int], longest: int, fused: bool = False) -> str:
    """The need of a training step that did not fit: what it needs, what there is, which settings would do.

    Args:
        model: with its adapter in place.
        lengths: tokens of each example of the batch.
        longest: tokens of the longest example of the data, which every batch size has to be good for.
        fused: whether kernels are in place, which hold no float32 copies.
    """
    memory, there = training_memory(model, fused), capacity(next(model.parameters()).device)
    tokens = sum(lengths)
    fitting, checkpointed = memory.fitting(there), memory.fitting(there, memory.checkpointed_token)
    need = (
        f"{len(lengths)} examples of {tokens:,} tokens need about {_gib(memory.needed(tokens))} GiB (weights "
        f"{_gib(memory.weights)}, adapter with gradients and Adam {_gib(memory.adapter)}, {tokens:,} tokens x "
        f"{memory.token / 2**20:.2f} MiB); this process can have {_gib(there)} GiB"
    )
    ways = [
        f"training.{setting}"
        for setting, room in (
            (f"batch_size={fitting // longest}", fitting // longest),
            ("gradient_checkpointing=true", checkpointed // longest >= len(lengths)),
        )
        if room
    ]
    if fitting >= len(lengths) * longest:  # the estimate says that it fits: something else takes the memory
        ways = ["fewer workers on this device", f"training.batch_size={max(1, len(lengths) // 2)}"]
    elif not ways and checkpointed >= longest:
        ways = [f"training.gradient_checkpointing=true with training.batch_size={checkpointed // longest}"]
    return f"{need}; {' or '.join(ways)} would fit" if ways else f"{need}; no batch size fits: use a smaller model"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def device_memory() -> int | None:
    """The bytes that this process holds of an accelerator's memory; None while it holds none."""
    if torch.cuda.is_initialized():
        return torch.cuda.memory_reserved()
    if torch.backends.mps.is_available():
        return torch.mps.driver_allocated_memory()
    return None


def forget(error: BaseException | None) -> None:
    """Free what the frames of a failed step hold: on a device, memory which other steps need."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    release()
