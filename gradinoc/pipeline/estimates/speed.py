"""How fast this machine is at what a study consists of, measured in a second or two, and what that makes of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from gradinoc.pipeline.estimates.passes import Work
from gradinoc.pipeline.estimates.shapes import Shapes

BUDGET = 0.2  # seconds for each thing that is measured, or three repetitions where these take longer
COPIES_BYTES = 200_000_000  # of a block's weights, several of which are used in turn: a model does not stay in a cache
COPIES = 6
ELEMENTS = 2**20  # of the pass over memory that is timed
# What a block does beside its matrix products (norms, activations, rotations, attention, losses, adapters), as passes
# over what its linear maps put out, and as calls of an operation; and what is done around each pass (batches, hooks,
# tables, the optimiser, generation's own), as calls. Measured with SmolLM2-135M (bfloat16 and float32) and the obedient
# model, one and two threads of a Xeon with AMX; single measurements were 0.6 to 1.8 of what these make of them.
PASSES = {"read": 7, "learn": 18, "train": 28}
CALLS = {"read": 500, "learn": 1500, "train": 1500}
AROUND = {"read": 6_000, "learn": 20_000, "train": 20_000}


@dataclass(frozen=True)
class Speed:
    """What was measured on a device.

    Attributes:
        products: (dtype, rows) -> floating-point operations a second in the matrix products of a block.
        element: dtype -> seconds for each number of a pass over memory.
        call: seconds for an operation on next to nothing.
    """

    products: dict[tuple[torch.dtype, int], float]
    element: dict[torch.dtype, float]
    call: float


def rows_of(work: Work) -> int:
    """Tokens of a pass of `work`, as a power of two: what speeds are measured at."""
    rows = max(1, work.tokens // max(1, work.passes))
    return 1 << (rows - 1).bit_length()


def seconds(work: Work, shapes: Shapes, speed: Speed, dtype: torch.dtype) -> float:
    """How long `work` would take one process, with the machine to itself."""
    kind = "read" if not work.learns else "train" if work.trains else "learn"
    products = shapes.flops(work) / speed.products[dtype, rows_of(work)]
    elements = work.tokens * shapes.layers * sum(out for _, out in shapes.block)
    calls = work.passes * (shapes.layers * CALLS[kind] + AROUND[kind])
    return products + elements * PASSES[kind] * speed.element[dtype] + calls * speed.call


def measure(shapes: Shapes, wanted: set[tuple[torch.dtype, int]], device: torch.device, threads: int) -> Speed:
    """The speed of `device`, with as many threads of its CPU (0: as torch would use), at these (dtype, rows)."""
    with _threads(threads), torch.inference_mode():
        products = {each: _products(shapes, *each, device) for each in sorted(wanted, key=str)}
        element = {dtype: _element(dtype, device) for dtype in {dtype for dtype, _ in wanted}}
        few = torch.ones(8, 8, device=device)
        return Speed(products, element, _timed(lambda: few * few, device, repeat=100))


def _products(shapes: Shapes, dtype: torch.dtype, rows: int, device: torch.device) -> float:
    numbers = sum(into * out for into, out in shapes.block)
    copies = max(1, min(COPIES, COPIES_BYTES // (numbers * dtype.itemsize)))
    weights = [[torch.ones(out, into, dtype=dtype, device=device) for into, out in shapes.block] for _ in range(copies)]
    inputs = [torch.ones(rows, into, dtype=dtype, device=device) for into, _ in shapes.block]

    def multiply() -> None:
        for copy in weights:
            for states, weight in zip(inputs, copy, strict=True):
                nn.functional.linear(states, weight)

    return 2 * rows * numbers * copies / _timed(multiply, device)


def _element(dtype: torch.dtype, device: torch.device) -> float:
    states = torch.ones(ELEMENTS, dtype=dtype, device=device)
    return _timed(lambda: nn.functional.silu(states), device) / ELEMENTS


def _timed(work: Callable[[], object], device: torch.device, repeat: int = 1) -> float:
    """The least seconds that one call took: whatever else the machine is at makes it seem slower, never faster."""
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 4 or time.perf_counter() - began < BUDGET:
        start = time.perf_counter()
        for _ in range(repeat):
            work()
        _wait(device)
        took.append((time.perf_counter() - start) / repeat)
    return min(took[1:])


def _wait(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
