"""How much of what an adapter writes into the residual stream lies along directions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor

from gradinoc.measure.interventions.bases import basis_of

# What maps are called that write into the residual stream: of attention or a recurrence, and of an MLP.
WRITERS = ("o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "fc_out")
BLOCK = re.compile(r"\.(\d+)\.")
FACTOR = re.compile(r"\.lora_([AB])\.weight$")


@dataclass(frozen=True)
class _Update:
    """ΔW = `scale` · B A of one map: A `[rank, in]`, B `[out, rank]`."""

    block: int
    down: Tensor
    up: Tensor
    scale: float

    def energy(self, basis: Tensor | None = None) -> float:
        """|ΔW|², or |V ΔW|² for the rows V of a basis, squared Frobenius norms, without forming ΔW."""
        down = self.down.double().cpu()
        up = self.up.double().cpu() if basis is None else basis @ self.up.double().cpu()
        return self.scale**2 * max(0.0, float(((up.mT @ up) * (down @ down.mT)).sum()))


def leak(
    adapter: str | Path | PeftModel,
    directions: Mapping[int, Tensor],
    modules: Sequence[str] = WRITERS,
    name: str = "default",
) -> dict[int, float]:
    """Share |vᵀ ΔW| / |ΔW| of a LoRA adapter's update that writes along v, by layer; NaN where nothing has moved.

    ΔW is that of the adapted maps that write into the residual stream in block l or a lower one, side by side;
    1 / √hidden is what a random direction would have. After training with the gradient's component along v removed
    (`project_gradient`) this says how much of it an optimiser put back: with plain gradient descent from B = 0 nothing,
    in the last map that writes in block l, but Adam scales every number of a gradient by itself, so that a gradient
    without a component along v becomes a step that has one. So do weights below, whose gradients come through the
    blocks. A norm behind a map (Gemma 2 and 3, OLMo 2, GLM 4) turns what it writes: the share is not that of the
    stream there.

    Args:
        adapter: a folder in PEFT's format, with safetensors; or a model with the adapter in place.
        directions: layer (0-based block) -> v, `[hidden]` of any length, or `[rank, hidden]` with orthonormal rows.
        modules: names of the maps that are looked at.
        name: which adapter of a model.

    Raises:
        ValueError: no adapted map of these names at or below a layer, or one whose update is not of a direction's
            size; an adapter that is more than two factors; directions that are not as above.
    """
    updates, found = _updates(adapter, name), {}
    for layer, direction in directions.items():
        basis = basis_of(layer, direction)
        writing = [update for module, update in updates if module in modules and update.block <= layer]
        if not writing or basis.dim() != 2 or any(basis.shape[-1] != len(each.up) for each in writing):
            raise ValueError(
                f"Layer {layer}: expected adapted maps {sorted(modules)} at or below it that write {basis.shape[-1]} "
                f"numbers, found {sorted({module for module, _ in updates})}"
            )
        whole = sum(update.energy() for update in writing)
        found[layer] = (sum(update.energy(basis) for update in writing) / whole) ** 0.5 if whole else torch.nan
    return found


def update_norm(adapter: str | Path | PeftModel, name: str = "default") -> float:
    """Norm of a LoRA adapter's update, |ΔW| over all of its maps: how far training moved the model's weights.

    Args:
        adapter: a folder in PEFT's format, with safetensors; or a model with the adapter in place.
        name: which adapter of a model.

    Raises:
        ValueError: an adapter that is more than two factors.
    """
    return float(sum(update.energy() for _, update in _updates(adapter, name)) ** 0.5)


def _updates(adapter: str | Path | PeftModel, name: str) -> list[tuple[str, _Update]]:
    """Name of the map and update, of every adapted map of a block."""
    return list(_in_place(adapter, name) if isinstance(adapter, PeftModel) else _saved(Path(adapter)))


def _in_place(model: PeftModel, name: str) -> Iterator[tuple[str, _Update]]:
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer) and name in module.lora_A and (block := BLOCK.search(path)):
            if module.lora_variant.get(name):
                raise ValueError(f"{path}: expected a plain low-rank update, received a variant of LoRA")
            own: Any = module
            down, up = own.lora_A[name].weight.detach(), own.lora_B[name].weight.detach()
            yield path.rpartition(".")[2], _Update(int(block[1]), down, up, float(own.scaling[name]))


def _saved(folder: Path) -> Iterator[tuple[str, _Update]]:
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    special = [key for key in ("rank_pattern", "alpha_pattern", "use_dora") if config.get(key)]
    if special or config.get("peft_type") != "LORA":
        raise ValueError(f"{folder}: expected a plain LoRA adapter, received {config.get('peft_type')} with {special}")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    weights = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    for path in sorted({FACTOR.sub("", key) for key in weights if FACTOR.search(key)}):
        if block := BLOCK.search(path):
            down, up = (weights[f"{path}.lora_{factor}.weight"] for factor in "AB")
            yield path.rpartition(".")[2], _Update(int(block[1]), down, up, scale)
