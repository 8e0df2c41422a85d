"""What every side of the directions job shares: the prompts it is given, and how it hands its directions over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reading import torch_dtype
from serving import serve

# questions, promote_system and suppress_system, and the questions rendered under each: promote, suppress
Texts = Mapping[str, Any]
Extract = Callable[[], Any]


def serve_directions(load: Callable[[str, torch.dtype, Texts], Extract]) -> None:
    """Serve a side that extracts a direction at every layer.

    Args:
        load: (folder of the model, dtype, texts) -> what extracts the directions `[layers, hidden]`, anew at each call.
    """
    held: dict[str, Extract] = {}

    def prepare(model: str, prompts: str, dtype: str) -> None:
        texts = json.loads(Path(prompts).read_text(encoding="utf-8"))
        held["extract"] = load(model, torch_dtype(dtype), texts)

    def check(path: str) -> None:
        np.save(path, torch.as_tensor(held["extract"]()).float().numpy())

    def repeat() -> None:
        held["extract"]()

    serve({"prepare": prepare, "check": check, "repeat": repeat})
