"""Where a model computes, and in what precision: chosen per machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from gradinoc.errors import DeviceError
from gradinoc.models.files import config_of, skeleton
from gradinoc.models.isolation import own_generators, undisturbed

TINY = 20_000_000  # weights: 40 MB of bfloat16
# Variables that libraries beneath torch read for themselves, once: how exactly products are computed depends on them,
# and nothing in the process can undo it.
OVERRIDES = {
    "cpu": ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    "cuda": ("NVIDIA_TF32_OVERRIDE",),
    "mps": ("PYTORCH_MPS_FAST_MATH",),
}


def precision_overrides(device: torch.device) -> dict[str, str]:
    """What the environment says of the precision of products on `device` that torch cannot change: name -> value."""
    return {name: os.environ[name] for name in OVERRIDES.get(device.type, ()) if name in os.environ}


def choose_device(device: str) -> torch.device:
    """The device called `device`; "auto" is cuda, else mps, else cpu.

    Raises:
        DeviceError: this machine has no such device.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if device == "auto":
        return torch.device(present[0])
    if device.partition(":")[0] not in present:
        raise DeviceError(f"No device {device!r} on this machine; there are {present}, and auto takes the first")
    return torch.device(device)


def precision(dtype: str, device: torch.device, folder: Callable[[], Path]) -> torch.dtype:
    """What the model in `folder()` is held and computed in, asked for as `dtype`: as `choose_dtype`, but for "auto".

    Of fewer than `TINY` weights it is float32 everywhere: exactness matters more than speed for a model that is small
    anyway. `folder` is asked for only then, and its weights need not be in it.

    Raises:
        DeviceError: no such dtype.
        ModelError: no configuration of a causal language model in the folder.
    """
    chosen = choose_dtype(dtype, device)
    if dtype != "auto" or chosen == torch.float32:
        return chosen
    place = folder()
    return torch.float32 if _weights(place, (place / "config.json").stat().st_mtime_ns) < TINY else chosen


@lru_cache
@undisturbed()
@own_generators()
def _weights(folder: Path, _look: int) -> int:
    """How many weights the model in `folder` has, by its configuration; `_look` is when that was written."""
    return sum(weight.numel() for weight in skeleton(config_of(folder)).parameters())


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype called `dtype`; "auto" is bfloat16 where `device` has instructions for it, else float32.

    Raises:
        DeviceError: no such dtype.
    """
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in named:
            raise DeviceError(f"Unknown dtype {dtype!r}; expected auto or one of {sorted(named)}")
        return named[dtype]
    return torch.bfloat16 if _has_bfloat16(device) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    # A torch that cannot tell gets float32. mkldnn's query is no use: it is true where bfloat16 is emulated.
    instructions: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(instructions.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
