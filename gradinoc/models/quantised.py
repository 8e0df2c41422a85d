"""Weights that are stored in fewer bits: MXFP4 is unpacked while a model is loaded, every other kind is refused.

A quantised model's linear maps are modules of their own, which no gradient goes through as it does through the weights
that they stand for. Of MXFP4, in which gpt-oss is published, each number is a 4-bit float times a power of two: what
bfloat16 and float32 hold exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils.quantization_config import Mxfp4Config

from gradinoc.errors import ModelError, shown

UNPACKED = "mxfp4"
KEY = "quantization_config"
NAMES = {"load_in_8bit": "bitsandbytes, 8 bits", "load_in_4bit": "bitsandbytes, 4 bits"}


def ensure_unquantised(folder: Path) -> None:
    """See to it that the weights in `folder` are those of a model, or MXFP4.

    Raises:
        ModelError: they are quantised; the message names the method.
    """
    method = _method(folder)
    if method not in (None, UNPACKED):
        raise ModelError(
            f"{folder / 'config.json'}: {KEY}: the weights are quantised ({shown(method)}), and gradients "
            "and adapters need those that they stand for; give the model that they were made from, or a copy in "
            "bfloat16 saved with save_pretrained"
        )


def unpacking(folder: Path) -> dict[str, Any]:
    """Arguments with which `from_pretrained` unpacks the weights in `folder`; none where there is nothing to unpack."""
    return {KEY: Mxfp4Config(dequantize=True)} if _method(folder) == UNPACKED else {}


def _method(folder: Path) -> str | None:
    """How the weights in `folder` are quantised, as their configuration has it; None if they are not."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # whoever loads it says so
        return None
    if not isinstance(config, dict):
        return None
    # transformers looks for it in the configuration and in that of its text part; other libraries call it otherwise.
    for part in (config, *(part for name, part in config.items() if name in ("text_config", "llm_config"))):
        for key in (KEY, "compression_config"):
            settings = part.get(key) if isinstance(part, Mapping) else None
            if settings is not None:
                return _name(settings)
    return None


def _name(settings: Any) -> str:
    if not isinstance(settings, Mapping):
        return str(settings)
    named = settings.get("quant_method") or next((NAMES[key] for key in NAMES if settings.get(key)), None)
    return str(named or "a method without a name")
