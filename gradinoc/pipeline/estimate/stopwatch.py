"""How fast a device does the parts of which work is made: products, passes over memory, calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from gradinoc.pipeline.estimate.shapes import Shapes
from gradinoc.pipeline.steps.work import LEARN, READ, TRAIN, Work

BUDGET = 0.2  # seconds of each measurement, which has at least three repetitions
COPIES_BYTES, COPIES = 200_000_000, 6  # of a block's weights, used in turn: a model does not stay in a cache
LONGEST = 512  # rows of the products that are timed: longer ones are as fast (to 5 % from 256 on) and take seconds
ELEMENTS = 2**20  # of the pass over memory that is timed
# Besides matrix products: passes over the outputs of a block's linear maps, calls of operations in a block, and calls
# around each pass through the model. Measured with SmolLM2-135M (bfloat16 and float32) and the obedient model, one and
# two threads of a Xeon with AMX: true times are 0.6 to 1.8 of what these give.
PASSES = {READ: 7, LEARN: 18, TRAIN: 28}
CALLS = {READ: 500, LEARN: 1500, TRAIN: 1500}
AROUND = {READ: 6_000, LEARN: 20_000, TRAIN: 20_000}


class Stopwatch:
    """How long a device takes for work, from the speeds of its parts, each measured once."""

    def __init__(self, shapes: Shapes, device: torch.device) -> None:
        self.shapes, self._device = shapes, device
        self._products: dict[tuple[torch.dtype, int], float] = {}  # operations a second in matrix products
        self._element: dict[torch.dtype, float] = {}  # seconds for each number of a pass over memory
        few = torch.ones(8, 8, device=device)
        self._call = self._timed(lambda: [few * few for _ in range(100)]) / 100

    def seconds(self, work: Work, dtype: torch.dtype) -> float:
        """Return how long `work` would take one process, with the machine to itself."""
        tokens = min(LONGEST, max(1, work.tokens // max(1, work.passes)))  # of a pass
        rows = 1 << (tokens - 1).bit_length()  # a power of two
        if (dtype, rows) not in self._products:
            self._products[dtype, rows] = self._speed(dtype, rows)
        if dtype not in self._element:
            states = torch.ones(ELEMENTS, dtype=dtype, device=self._device)
            self._element[dtype] = self._timed(lambda: nn.functional.silu(states)) / ELEMENTS
        elements = work.tokens * self.shapes.layers * sum(out for _, out in self.shapes.block)
        calls = work.passes * (self.shapes.layers * CALLS[work.backward] + AROUND[work.backward])
        products = self.shapes.flops(work) / self._products[dtype, rows]
        return products + elements * PASSES[work.backward] * self._element[dtype] + calls * self._call

    def _speed(self, dtype: torch.dtype, rows: int) -> float:
        """Measure the operations a second in the matrix products of a block."""
        shapes, ones = self.shapes.block, partial(torch.ones, dtype=dtype, device=self._device)
        numbers = sum(into * out for into, out in shapes)
        copies = max(1, min(COPIES, COPIES_BYTES // (numbers * dtype.itemsize)))
        weights = [[ones(out, into) for into, out in shapes] for _ in range(copies)]
        inputs = [ones(rows, into) for into, _ in shapes]

        def multiply() -> None:
            for copy in weights:
                for states, weight in zip(inputs, copy, strict=True):
                    nn.functional.linear(states, weight)

        return 2 * rows * numbers * copies / self._timed(multiply)

    @torch.inference_mode()
    def _timed(self, work: Callable[[], object]) -> float:
        """Return the least seconds of several calls: other processes only make it slower."""
        took: list[float] = []
        began = time.perf_counter()
        while len(took) < 4 or time.perf_counter() - began < BUDGET:
            start = time.perf_counter()
            work()
            if self._device.type != "cpu":
                getattr(torch, self._device.type).synchronize()
            took.append(time.perf_counter() - start)
        return min(took[1:])
