"""A model's folder holds numbers and settings: what has a library unpickle, or fetch code, is refused beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradinoc.errors import ModelError, shown

PLAIN = ("eager", "sdpa")  # attention that comes with torch and transformers; other names may stand for code on the hub
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}")


def ensure_inert(folder: Path) -> None:
    """See to it that nothing in `folder` leads a loader to pickles, to other repositories or to their code.

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
    """See to it that a hub model's revision is the name of one: the hub's library keeps a file of that name.

    Raises:
        ModelError: it could lead out of the cache.
    """
    if revision is not None and (".." in revision or not REVISION.fullmatch(revision)):
        raise ModelError(
            f"model.revision: expected the name of a branch or tag, or a commit, received {shown(revision)}; give one "
            "without blanks and without '..'"
        )


def _content(file: Path) -> Any:
    """What a JSON file holds; nothing where it cannot be read, which whoever loads it will say."""
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
