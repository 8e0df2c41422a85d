"""Forward passes of a fused model on packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from gradinoc.measure.fast.attention import packed_attention, shared_attention, windowed_attention
from gradinoc.models.blocks import unwrapped

PACKED = "packed_sdpa"  # name of the attention implementation, and the mark of a fused model
# What some models do to logits after the product: a setting, and whether they multiply by it or divide.
LOGIT_SCALES = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of packed sequences where `lengths` are given, transformers' SDPA otherwise.

    Raises:
        NotImplementedError: packed sequences with options that only other implementations know.
    """
    lengths, below = options.pop("lengths", None), options.pop("below", ())
    if lengths is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    unknown = [name for name in ("softcap", "s_aux", "dropout") if options.get(name)]
    if unknown:
        raise NotImplementedError(f"packed sequences with {unknown}")
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if window := options.get("sliding_window"):
        return windowed_attention(query, key, value, lengths, below, scale, int(window)).transpose(1, 2), None
    if any(below):
        return shared_attention(query, key, value, lengths, below, scale).transpose(1, 2), None
    return packed_attention(query, key, value, lengths, scale).transpose(1, 2), None


AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def is_fused(model: nn.Module) -> bool:
    """Whether the parts of `model` are replaced, so that it takes packed sequences."""
    return bool(getattr(getattr(unwrapped(model), "config", None), "_attn_implementation", None) == PACKED)


def final_states(model: nn.Module, lengths: Sequence[int], below: Sequence[int] = (), **inputs: Any) -> Tensor:
    """Final hidden states `[tokens, hidden]` of packed sequences, after the last norm; no logits.

    Args:
        model: fused, PEFT-wrapped or not.
        lengths: tokens of each sequence, or of each piece where sequences share their beginnings.
        below: how many of the tokens after each piece go on from it, then; see `gradinoc.models.chat.encoding.Shared`.
        inputs: `input_ids` `[1, tokens]` or `inputs_embeds` `[1, tokens, hidden]`, and `position_ids` `[1, tokens]`
            unless each sequence begins at 0.
    """
    base: Any = unwrapped(model)
    first = next(iter(inputs.values()))
    if "position_ids" not in inputs:
        inputs["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None].to(first.device)
    # A mask of four dimensions is handed through as it is; attention looks at the lengths alone.
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=first.device)
    out = base.get_decoder()(attention_mask=mask, use_cache=False, lengths=tuple(lengths), below=tuple(below), **inputs)
    return torch.as_tensor(out.last_hidden_state[0])


def unembedding(model: nn.Module) -> tuple[Tensor, float]:
    """The frozen matrix `[vocabulary, hidden]` that turns final states into logits, and what these are multiplied by.

    Raises:
        NotImplementedError: logits are more than that.
    """
    base: Any = unwrapped(model)
    head: Any = base.get_output_embeddings()
    config: Any = base.config.get_text_config()
    capped = getattr(config, "final_logit_softcapping", None)
    if type(head) is not nn.Linear or getattr(head, "bias", None) is not None or capped:
        raise NotImplementedError(f"Logits of {type(base).__name__} are not a product with one matrix")
    scale = 1.0
    for name, power in LOGIT_SCALES.items():
        scale *= float(getattr(config, name, None) or 1.0) ** power
    return torch.as_tensor(head.weight), scale
