"""Compute as a fresh process would, whatever a launcher or user has set in this one, and put it all back afterwards."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

# Variables of launchers (torchrun, accelerate, mpirun, SageMaker): Trainer would take them to mean that this process
# is one of several that train one model, or that it is to train in another precision.
LAUNCHERS = (
    "ACCELERATE_", "FSDP_", "FP8_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "PMI_", "PMIX_", "OMPI_",
    "MV2_", "SMDATAPARALLEL_", "SM_HP_", "SM_FRAMEWORK_",
)  # fmt: skip
RANKS = frozenset({
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED", "TRANSFORMERS_SDPA_FORCE_GQA",
})  # fmt: skip
SINGLETONS: tuple[Any, ...] = (PartialState, AcceleratorState, GradientState)
AUTOCASTING = ("cpu", "cuda", "mps")
NUMPY: Any = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
PANDAS = {
    "mode.string_storage": "auto", "future.infer_string": True, "future.distinguish_nan_and_na": False,
    "future.python_scalars": False, "compute.use_bottleneck": True, "compute.use_numexpr": True,
    "compute.use_numba": False, "display.precision": 6, "display.float_format": None,
}  # fmt: skip


UNKNOWN = object()


@dataclass(frozen=True)
class Setting:
    """A setting of the whole process.

    Attributes:
        read: returns its value; `UNKNOWN` where the library refuses to say.
        write: sets it.
        own: the values that a fresh process may have; the first replaces any other. Empty: any value is right.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    own: tuple[Any, ...]


def _attribute(holder: Any, name: str, *own: Any) -> Setting:
    return Setting(lambda: getattr(holder, name), lambda value: setattr(holder, name, value), own)


def _readable(read: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    def reading() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some options of pandas are deprecated
            try:
                return read(*arguments)
            except (RuntimeError, pd.errors.OptionError):  # switches that disagree; an option that is gone
                return UNKNOWN

    return reading


def _option(name: str, own: Any) -> Setting:
    return Setting(_readable(pd.get_option, name), lambda value: pd.set_option(name, value), (own,))


def _flushes() -> bool:
    """Whether numbers near zero are taken for zero; torch has no other way to ask."""
    smallest = sys.float_info.min
    return smallest / 2 == 0.0


_backends: Any = torch.backends
_cuda, _cudnn, _mkldnn = _backends.cuda, _backends.cudnn, _backends.mkldnn
SETTINGS = (
    Setting(torch.get_default_dtype, torch.set_default_dtype, (torch.float32,)),
    # How exactly products of float32 are computed: by the older switches first, which move the newer ones too.
    Setting(_readable(torch.get_float32_matmul_precision), torch.set_float32_matmul_precision, ("highest",)),
    Setting(
        _readable(lambda: _cudnn.allow_tf32),
        lambda value: setattr(_cudnn, "allow_tf32", value),
        (True,),
    ),
    _attribute(_backends, "fp32_precision", "none"),
    _attribute(_cudnn, "fp32_precision", "none"),
    _attribute(_mkldnn, "fp32_precision", "none"),
    _attribute(_cuda.matmul, "fp32_precision", "ieee", "none"),
    _attribute(_cudnn.conv, "fp32_precision", "tf32"),
    _attribute(_cudnn.rnn, "fp32_precision", "tf32"),
    _attribute(_mkldnn.matmul, "fp32_precision", "ieee", "none"),
    _attribute(_mkldnn.conv, "fp32_precision", "ieee", "none"),
    _attribute(_cuda.matmul, "allow_fp16_reduced_precision_reduction", True),
    _attribute(_cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
    _attribute(_cuda.matmul, "allow_fp16_accumulation", False),
    # Which implementations are taken, the CPU's included.
    Setting(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, (True,)),
    Setting(_cuda.flash_sdp_enabled, _cuda.enable_flash_sdp, (True,)),
    Setting(_cuda.mem_efficient_sdp_enabled, _cuda.enable_mem_efficient_sdp, (True,)),
    Setting(_cuda.math_sdp_enabled, _cuda.enable_math_sdp, (True,)),
    Setting(_cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp, (True,)),
    Setting(_cuda.fp16_bf16_reduction_math_sdp_allowed, _cuda.allow_fp16_bf16_reduction_math_sdp, (False,)),
    _attribute(_cudnn, "enabled", True),
    _attribute(_cudnn, "benchmark", False),
    _attribute(_cudnn, "deterministic", False),
    Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, (0,)),
    Setting(_flushes, torch.set_flush_denormal, (False,)),
    Setting(torch.get_num_threads, torch.set_num_threads, ()),
    # What stops a run at a number that we would name more helpfully.
    Setting(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
        ((False, True),),
    ),
    *(_option(name, own) for name, own in PANDAS.items()),
)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside the block torch, accelerate, NumPy and pandas compute as in a fresh process, and this process alone.

    A decorator or a block; blocks may be nested, and run in several threads. Gradients are recorded inside. Afterwards
    environment, switches, modes, thread count and accelerate's records are as they were. Other threads are affected
    in the meantime.
    """
    with _the_process(), _this_thread(), np.errstate(**NUMPY):
        yield


_one_thread = RLock()


@contextmanager
def own_generators() -> Iterator[None]:
    """Inside the block the global generators may be seeded and drawn from; afterwards they are as they were.

    One thread at a time. Accelerate's records and transformers' settings while it loads a model are global as well, so
    both are written in such blocks alone.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    on_apple = torch.backends.mps.is_available()
    with _one_thread, torch.random.fork_rng(devices):
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - Trainer seeds the legacy generator
        apple = torch.mps.get_rng_state() if on_apple else None
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            if apple is not None:
                torch.mps.set_rng_state(apple)


# --- the whole process: changed by the first block that is entered, put back by the last that is left

_lock, _inside, _undo = Lock(), [0], ExitStack()


@contextmanager
def _the_process() -> Iterator[None]:
    with _lock:
        if not _inside[0]:
            for each in (_environment, _records, _switches, _warnings):
                _undo.enter_context(each())
        _inside[0] += 1
    try:
        yield
    finally:
        with _lock:
            _inside[0] -= 1
            if not _inside[0]:
                _undo.pop_all().close()


def _of_launcher(name: str) -> bool:
    return name in RANKS or name.startswith(LAUNCHERS)


@contextmanager
def _environment() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _of_launcher(name)}
    try:
        yield
    finally:
        for name in filter(_of_launcher, list(os.environ)):  # which libraries have set meanwhile
            del os.environ[name]
        os.environ.update(hidden)


@contextmanager
def _records() -> Iterator[None]:
    """What accelerate knows of this process is shared by everything in it, and Trainer writes it anew."""
    before = [dict(singleton._shared_state) for singleton in SINGLETONS]
    for singleton in SINGLETONS:
        singleton._shared_state.clear()
    try:
        yield
    finally:
        for singleton, known in zip(SINGLETONS, before, strict=True):
            singleton._shared_state.clear()
            singleton._shared_state.update(known)


@contextmanager
def _switches() -> Iterator[None]:
    before = [setting.read() for setting in SETTINGS]
    _write([_wanted(setting, value) for setting, value in zip(SETTINGS, before, strict=True)])
    try:
        yield
    finally:
        _write(before)


def _wanted(setting: Setting, value: Any) -> Any:
    return setting.own[0] if setting.own and value not in (UNKNOWN, *setting.own) else value


def _write(values: Sequence[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for setting, value in zip(SETTINGS, values, strict=True):
            if value is not UNKNOWN and setting.read() != value:
                setting.write(value)


@contextmanager
def _warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft asks transformers for a property by its old name, at every adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


# --- this thread


@contextmanager
def _this_thread() -> Iterator[None]:
    # Leaving inference mode, which nothing can be trained in, starts recording gradients too.
    with torch.inference_mode(False), torch.enable_grad(), _function_modes(), _autocast():
        yield


@contextmanager
def _function_modes() -> Iterator[None]:
    """Without modes that see every call of torch, a default device among them."""
    aside = [_pop_mode() for _ in _get_current_function_mode_stack()]
    if not aside:
        yield
        return
    try:
        with torch.device("cpu"):
            yield
    finally:
        for mode in reversed(aside):
            _push_mode(mode)


@contextmanager
def _autocast() -> Iterator[None]:
    active = [device for device in AUTOCASTING if torch.is_autocast_enabled(device)]
    for device in active:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device in active:
            torch.set_autocast_enabled(device, True)
