"""What several responses to one prompt begin with, computed once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

KEPT = (DynamicLayer, DynamicSlidingWindowLayer)  # keys and values by token; other layers' states are left alone


def can_share(model: Any) -> bool:
    """Whether all that `model`, not wrapped by PEFT, keeps of a prompt is keys and values, which rows can share."""
    if not model._supports_default_dynamic_cache() or "past_key_values" not in signature(model.forward).parameters:
        return False
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return bool(layers) and all(type(layer) in KEPT for layer in layers)


def past_of(model: Any, ids: Tensor, mask: Tensor, alike: Sequence[int], copies: int) -> dict[str, Cache]:
    """Keys and values of all tokens of padded prompts but the last, each prompt's made once, as `generate` takes them.

    Nothing where no two rows have one prompt.

    Args:
        ids: `[copies * batch, seq]`, with `mask`, copy by copy.
        alike: which prompt each row of a copy has; rows of one prompt are neighbours.
        copies: how often the rows are there, once for each adapter of a stack.
    """
    firsts = [row for row in range(len(alike)) if not row or alike[row] != alike[row - 1]]
    if len(firsts) == len(alike) or ids.shape[1] < 2:
        return {}
    every = torch.tensor([copy * len(alike) + row for copy in range(copies) for row in firsts], device=ids.device)
    settings = GenerationConfig(max_new_tokens=1, do_sample=False, return_dict_in_generate=True, pad_token_id=0)
    found = model.generate(ids[every, :-1], attention_mask=mask[every, :-1], generation_config=settings)
    past: Cache = found.past_key_values  # nothing of the token that was made: it was not put in
    place = torch.tensor([bisect_right(firsts, row) - 1 for row in range(len(alike))])
    rows = torch.cat([place + copy * len(firsts) for copy in range(copies)])
    layers: Any = past.layers
    for layer in layers:  # each may be on a device of its own
        layer.batch_select_indices(rows.to(layer.keys.device))
    return {"past_key_values": past}
