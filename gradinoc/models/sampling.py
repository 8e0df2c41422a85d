"""Noise that makes samples of greedy choices: each response has its own, whatever it shares a batch with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

# A permutation of 32-bit numbers, "triple32" of https://github.com/skeeto/hash-prospector: shifts and odd factors.
ROUNDS = ((0xED5AD4BB, 11), (0xAC4C1B51, 15), (0x31848BAB, 14))
SPREAD = 0x9E3779B1  # odd, so that no two tokens begin alike
# Of 31-bit numbers to (0, 1): never 0, of which the noise would be infinite, nor 1 when rounded to float32.
SCALE, LEAST = 2.0**-31 * (1 - 2.0**-24), 2.0**-32
CACHED = 1 << 16  # numbers at a time on a CPU: what they take stays in a core's cache
AT_ONCE = 1 << 24  # elsewhere, where each call costs more than the memory


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled, at temperature 1.

    Attributes:
        samples: of each prompt.
        max_new_tokens: of a response.
        seed: of the noise; another one gives other responses.
    """

    samples: int
    max_new_tokens: int
    seed: int = 0


def noise_keys(seed: int, label: str, prompt: Sequence[int], sample: int, steps: int) -> NDArray[np.int32]:
    """Keys `[steps, 2]` of one response's noise, from a generator (Philox) of its own.

    It is seeded with all that is given (SHA-256) but `steps`, of which the first are the same however many there are.
    """
    told = json.dumps([seed, label, sample, list(prompt)]).encode()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(told).digest()[:16])))
    return generator.integers(2**32, size=(steps, 2), dtype=np.uint32).view(np.int32)


def gumbel_noise(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise `[rows, tokens]` float32, `-log(-log(1 - u))`, of keys `[rows, 2]` and token ids, int32.

    `u` is a hash of token and keys, of 31 bits, the same on every device. Tokens of one row never share a hash before
    its last bit is dropped. The largest noise comes from the smallest `u`, which float32 holds exactly: noise ends at
    22.2, where `u` of torch's 24-bit uniform numbers would end at 16.6, and leave out tokens less likely than 6e-8.
    """
    numbers = (tokens * _signed(SPREAD)) ^ keys[:, :1]
    shifted = torch.empty_like(numbers)
    for place, (factor, shift) in enumerate(ROUNDS):
        numbers.mul_(_signed(factor))
        torch.bitwise_right_shift(numbers, shift, out=shifted)  # copies the sign bit into what becomes free
        if place < len(ROUNDS) - 1:
            shifted.bitwise_and_((1 << (32 - shift)) - 1)
        numbers.bitwise_xor_(shifted)
        if place == 0:
            numbers.bitwise_xor_(keys[:, 1:])
    # The last round keeps the copies: the sign bit is xored with itself, and 31 bits are left.
    return numbers.float().mul_(-SCALE).sub_(LEAST).log1p_().neg_().log_().neg_()


def _signed(number: int) -> int:
    """A 32-bit number as int32 has it."""
    return number - (1 << 32) if number >> 31 else number


class GumbelNoise(LogitsProcessor):
    """Adds noise to the logits of each step: the largest sum is at a token drawn from their softmax.

    This is the Gumbel-max trick (Maddison et al. 2014, https://arxiv.org/abs/1411.0030). Rounding in the logits moves a
    choice as rarely as it moves a greedy one; drawing by cumulated probabilities would not have that.

    Args:
        keys: `[rows, steps, 2]` int32, see `noise_keys`.
        device: of the logits.
    """

    def __init__(self, keys: NDArray[np.int32], device: torch.device) -> None:
        self._keys, self._step = torch.from_numpy(keys).to(device), 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits `[rows, vocabulary]` float32 with the step's noise."""
        del input_ids
        keys = self._keys[:, self._step]
        self._step += 1
        tokens = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
        size = max(1, (CACHED if scores.device.type == "cpu" else AT_ONCE) // len(tokens))
        parts = zip(scores.split(size), keys.split(size), strict=True)
        return torch.cat([part + gumbel_noise(own, tokens) for part, own in parts])
