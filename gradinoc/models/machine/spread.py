"""One model over several devices: its blocks compute where they are held, and the residual stream comes back to one.

Accelerate says which module goes where, and moves what it is given there. Here each block hands its output back to the
device that it came from, so that whatever reads or changes the stream finds it on one device, as of a model that is
held whole. That costs a block that is elsewhere two copies of a hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from torch import nn
from transformers import PreTrainedModel

from gradinoc.errors import DeviceError, shown
from gradinoc.models.blocks import decoder_blocks, decoder_of

OFFLOADED = ("cpu", "disk", "meta")


def spread_over(device_map: str | None, device: torch.device) -> dict[str, Any]:
    """What transformers is to be asked for: accelerate's map over all accelerators; of a processor there is one."""
    return {} if device_map is None or device.type == "cpu" else {"device_map": device_map}


def held_on(model: nn.Module) -> str:
    """Kind of device that a model is on, and how many of them."""
    devices = {weight.device for weight in model.parameters()}
    kind = next(model.parameters()).device.type
    return f"{len(devices)} devices of {kind}" if len(devices) > 1 else kind


def device_map_of(model: nn.Module) -> Mapping[str, Any]:
    """Which module of a model is on which device; empty where all is on one."""
    found: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    return found if len(set(map(str, found.values()))) > 1 else {}


def ensure_held(model: PreTrainedModel) -> None:
    """Ensure that a model that was spread over accelerators is on them as a whole.

    Raises:
        DeviceError: modules were left in the processor's memory or on disk.
    """
    left = sorted(name for name, place in device_map_of(model).items() if str(place).partition(":")[0] in OFFLOADED)
    if left:
        raise DeviceError(
            f"model.device_map: {len(left)} modules did not fit the devices, {shown(left[0])} first, and would be "
            "fetched from memory or disk in every pass, backward passes included; use more devices, "
            "model.dtype=bfloat16 or a smaller model"
        )


def keep_stream_together(model: PreTrainedModel) -> None:
    """Have blocks, the decoder and the head of a model that accelerate spread hand back what they put out."""
    inner: list[nn.Module] = [*decoder_blocks(model), decoder_of(model), model.get_output_embeddings()]
    for module in inner:
        hook: Any = getattr(module, "_hf_hook", None)
        weight = next(module.parameters())
        place = weight.device if hook is None or hook.execution_device is None else hook.execution_device
        remove_hook_from_module(module)
        add_hook_to_module(module, _HandingBack(place, io_same_device=True, skip_keys=_kept_in_place(model)))


def _kept_in_place(model: PreTrainedModel) -> list[str]:
    """Arguments that stay where they are: what each block keeps of earlier tokens is on its own device."""
    names: Any = model._skip_keys_device_placement
    return [names] if isinstance(names, str) else [*(names or ())]


class _HandingBack(AlignDevicesHook):  # type: ignore[misc]
    """Accelerate's own, but that it moves no weights: they are in place."""

    def init_hook(self, module: nn.Module) -> nn.Module:
        return module
