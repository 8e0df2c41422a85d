"""Refuse a model's folder that would have a library unpickle, fetch code, or compute with quantised weights.

A quantised model's linear maps are modules of their own, through which no gradient goes as through the weights that
they stand for. MXFP4 alone is unpacked on loading (gpt-oss): a 4-bit float times a power of two, which bfloat16 holds
exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.utils.quantization_config import Mxfp4Config

from gradinoc.errors import ModelError, shown

PLAIN = ("eager", "sdpa")  # attention that comes with torch and transformers; other names may stand for code on the hub
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}")
UNPACKED = "mxfp4"
KEY = "quantization_config"
NAMES = {"load_in_8bit": "bitsandbytes, 8 bits", "load_in_4bit": "bitsandbytes, 4 bits"}


def ensure_inert(folder: Path) -> None:
    """Ensure that nothing in `folder` leads a loader to pickles, to other repositories or to their code.

    Files that only lie there do no harm: they are not read.

    Raises:
        ModelError: an index that names other files than safetensors beside it, attention by the name of a repository,
            or an adapter, which stands for a base model from somewhere else.
    """
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder}: adapter_config.json: an adapter has its base model fetched from wherever it says; "
            "merge it into that model, and give the folder of the two"
        )
    for index in sorted(folder.rglob("*.index.json")):
        for name in _values(_content(index), "weight_map"):
            if not name.endswith(".safetensors") or Path(name).name != name:
                raise ModelError(
                    f"{index}: weight_map: expected names of safetensors files beside it, received "
                    f"{shown(name)}; save the model with save_pretrained"
                )
    config = folder / "config.json"
    for name in _values(_content(config), "_attn_implementation", "attn_implementation"):
        if name not in PLAIN:
            raise ModelError(
                f"{config}: attn_implementation: expected one of {list(PLAIN)}, received {shown(name)}, "
                "which may stand for code to be fetched and run; remove the key"
            )


def ensure_revision(revision: str | None) -> None:
    """Ensure that a hub model's revision is a plain name: the hub's library keeps a file of that name.

    Raises:
        ModelError: it could lead out of the cache.
    """
    if revision is not None and (".." in revision or not REVISION.fullmatch(revision)):
        raise ModelError(
            f"model.revision: expected the name of a branch or tag, or a commit, received {shown(revision)}; give one "
            "without blanks and without '..'"
        )


def ensure_unquantised(folder: Path) -> None:
    """Ensure that the weights in `folder` are not quantised, or in MXFP4.

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
    config = _content(folder / "config.json")
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


def _content(file: Path) -> Any:
    """What a JSON file holds; None where it cannot be read, which loading reports."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _values(content: Any, *keys: str) -> Iterator[str]:
    """Every text below one of the keys, however deep they lie in mappings."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _texts(value) if key in keys else _values(value, *keys)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
