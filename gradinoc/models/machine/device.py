"""Where a model computes, and in what precision: chosen per machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from gradinoc.disk import cache_folder, write_atomically
from gradinoc.errors import DeviceError, StoreError
from gradinoc.models.files import config_of, skeleton
from gradinoc.models.machine.isolation import own_generators, undisturbed

TINY = 20_000_000  # weights: 40 MB of bfloat16
PAYS = 1.2  # times as fast as float32 that bfloat16 has to be on a processor: it is less exact
TOKENS, LARGEST = 256, 1536  # of the products that are timed: rows, most columns
TURNS, SECONDS = 5, 0.25  # products are timed at least so often and for so long: on a busy machine a few are all late
BFLOAT16_ERROR = 2.0**-7  # largest error of a product in bfloat16, relative to its largest number: a last rounding
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # variables that forbid oneDNN instructions: speeds differ
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
    anyway. On a processor it is what multiplies faster there; see `bfloat16_pays`. `folder` is asked for only then, and
    its weights need not be in it.

    Raises:
        DeviceError: no such dtype.
        ModelError: no configuration of a causal language model in the folder.
    """
    chosen = choose_dtype(dtype, device)
    if dtype != "auto" or chosen == torch.float32:
        return chosen
    place = folder()
    weights, shape = _sizes(place, (place / "config.json").stat().st_mtime_ns)
    if weights < TINY or (device.type == "cpu" and not bfloat16_pays(*shape)):
        return torch.float32
    return chosen


@lru_cache
@undisturbed()
@own_generators()
def _sizes(folder: Path, _look: int) -> tuple[int, tuple[int, int]]:
    """Weights of the model in `folder` and the sizes of its costliest product, by its configuration of time `_look`."""
    model = skeleton(config_of(folder))
    shapes = [tuple(module.weight.shape) for module in model.modules() if isinstance(module, nn.Linear)]
    cost = {shape: shapes.count(shape) * shape[0] * shape[1] for shape in sorted(set(shapes))}
    out, into = max(cost, key=cost.__getitem__, default=(LARGEST, LARGEST))
    return sum(weight.numel() for weight in model.parameters()), (into, out)


@lru_cache
def bfloat16_pays(into: int, out: int) -> bool:
    """Whether products of `[tokens, into]` and `[into, out]` are `PAYS` times as fast here in bfloat16, and right.

    Processors with instructions for bfloat16 differ: with AMX it is 6 to 10 times as fast as float32, elsewhere it can
    be the slower one. Measured once in less than 0.3 s and kept in the cache, so that all processes of a machine choose
    alike, and a study that goes on does so as it began.
    """
    record = cache_folder() / "products.json"
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    name = ", ".join([platform.node(), f"torch {torch.__version__}", f"{into} x {out}", *limits])
    with suppress(OSError, StoreError):
        record.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{record}.lock"):
            known = _measured_before(record)
            if name not in known:
                known[name] = _measure(into, out)
                write_atomically(record, json.dumps(known, indent=1).encode())
            return known[name]
    return _measure(into, out)  # the cache cannot be written to


def _measured_before(record: Path) -> dict[str, bool]:
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(known, dict) and all(isinstance(pays, bool) for pays in known.values())
    return known if sound else {}


def _measure(into: int, out: int) -> bool:
    speeds, error = product_speeds(into, out)
    return error <= BFLOAT16_ERROR and speeds[torch.bfloat16] >= PAYS * speeds[torch.float32]


def product_speeds(into: int, out: int) -> tuple[dict[torch.dtype, float], float]:
    """Products of these sizes a second in float32 and in bfloat16, by turns, the best; and bfloat16's error."""
    generator = torch.Generator().manual_seed(0)
    shapes = (TOKENS, min(into, LARGEST)), (min(into, LARGEST), min(out, LARGEST))
    exact = [torch.randn(shape, generator=generator).bfloat16().float() for shape in shapes]
    operands = {dtype: [each.to(dtype) for each in exact] for dtype in (torch.float32, torch.bfloat16)}
    seconds, product, turns, start = dict.fromkeys(operands, float("inf")), {}, 0, time.perf_counter()
    while turns < TURNS or time.perf_counter() - start < SECONDS:  # the first makes everything ready
        turns += 1
        for dtype, (left, right) in operands.items():
            began = time.perf_counter()
            product[dtype] = left @ right
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
    apart = (product[torch.bfloat16].float() - product[torch.float32]).abs().max() / product[torch.float32].abs().max()
    return {dtype: 1 / each for dtype, each in seconds.items()}, float(apart)


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
