"""Forward passes of a fused model on packed sequences."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from gradinoc.measure.fast.attention import Layout, capped_attention, packed_attention
from gradinoc.measure.fast.kernels import token_losses
from gradinoc.models.blocks import unwrapped

PACKED = "packed_sdpa"  # name of the attention implementation, and the mark of a fused model
# What some models do to logits after the product: a setting, and whether they multiply by it or divide.
LOGIT_SCALES = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of packed sequences where a `layout` is given, transformers' SDPA otherwise.

    Raises:
        NotImplementedError: packed sequences with options that only other implementations know.
    """
    layout, past = options.pop("layout", None), options.pop("past", None)
    if layout is None:
        layout, past = handed.get()
    if layout is None:
        return _attend_padded(module, query, key, value, attention_mask, **options)
    unknown = [name for name in ("s_aux", "dropout") if options.get(name)]
    if unknown:
        raise NotImplementedError(f"packed sequences with {unknown}")
    scale, window = options.get("scaling"), int(options.get("sliding_window") or sys.maxsize)
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if past is not None:
        key, value = past.extended(module, key, value)
    found = packed_attention(query, key, value, layout, scale, window, options.get("softcap"))
    return found.transpose(1, 2).contiguous(), None  # as transformers' own: some models take a view of it


def _attend_padded(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of padded sequences: transformers' SDPA, and what it would leave out."""
    if not (cap := options.get("softcap")):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, seen, **options)
        return found
    if seen is None and query.shape[2] > 1:  # transformers leaves a mask away that is causal and no more
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        seen = seen.tril(key.shape[2] - query.shape[2])
    return capped_attention(query, key, value, seen, float(options["scaling"]), cap).transpose(1, 2).contiguous(), None


class Past:
    """Keys and values of a row of tokens, kept by the first pass that is given this, and seen by later ones."""

    def __init__(self) -> None:
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extended(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Those of an attention module `[1, heads, tokens, head]`, behind the kept ones once there are any."""
        if module not in self._kept:
            self._kept[module] = (key, value)
            return key, value
        kept_key, kept_value = self._kept[module]
        return torch.cat([kept_key, key], dim=2), torch.cat([kept_value, value], dim=2)


# Which tokens see which, for modules that are not given what their block is given beside its arguments.
handed: ContextVar[tuple[Layout | None, Past | None]] = ContextVar("handed", default=(None, None))


@contextmanager
def handing(layout: Layout | None, past: Past | None) -> Iterator[None]:
    """Inside the block `attend` takes these, unless it is given others."""
    token = handed.set((layout, past))
    try:
        yield
    finally:
        handed.reset(token)


AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def is_fused(model: nn.Module) -> bool:
    """Whether the parts of `model` are replaced, so that it takes packed sequences."""
    return bool(getattr(getattr(unwrapped(model), "config", None), "_attn_implementation", None) == PACKED)


def final_states(model: nn.Module, layout: Layout, past: Past | None = None, **inputs: Any) -> Tensor:
    """Final hidden states `[tokens, hidden]` of packed sequences, after the last norm; no logits.

    Args:
        model: fused, PEFT-wrapped or not.
        layout: which tokens see which.
        past: of the tokens that come before; they are kept in it if there are none yet.
        inputs: `input_ids` `[1, tokens]` or `inputs_embeds` `[1, tokens, hidden]`, and `position_ids` `[1, tokens]`
            unless each sequence begins at 0.
    """
    base: Any = unwrapped(model)
    first = next(iter(inputs.values()))
    if "position_ids" not in inputs:
        lengths = [each.queries.stop - each.queries.start for each in layout.own]
        inputs["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None].to(first.device)
    # A mask of four dimensions is handed through as it is; attention looks at the layout alone.
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=first.device)
    out = base.get_decoder()(attention_mask=mask, use_cache=False, layout=layout, past=past, **inputs)
    return torch.as_tensor(out.last_hidden_state[0])


@dataclass(frozen=True)
class Unembedding:
    """What turns final states into logits: a frozen matrix, and what is done to its products.

    Attributes:
        weight: `[vocabulary, hidden]`.
        scale: what products are multiplied by.
        cap: the largest size of a logit, approached as by tanh; None where there is none.
    """

    weight: Tensor
    scale: float = 1.0
    cap: float | None = None

    def logits(self, products: Tensor) -> Tensor:
        """Logits of products `[..., vocabulary]`."""
        scaled = products if self.scale == 1 else products * self.scale
        return scaled if self.cap is None else (scaled / self.cap).tanh() * self.cap

    def logits_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Logits of `tokens` `[rows, some]` alone, float32, of final states `[rows, hidden]`."""
        return self.logits((self.weight[tokens].float() @ hidden.float().unsqueeze(-1)).squeeze(-1))

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy `[tokens]` float32, nats, of final states `[tokens, hidden]` with `targets`."""
        return token_losses(hidden if self.scale == 1 else hidden * self.scale, self.weight, targets, self.cap)


def unembedding(model: nn.Module) -> Unembedding:
    """How final states become logits.

    Raises:
        NotImplementedError: otherwise than by one matrix, a scale and a cap.
    """
    base: Any = unwrapped(model)
    head: Any = base.get_output_embeddings()
    config: Any = base.config.get_text_config()
    if type(head) is not nn.Linear or getattr(head, "bias", None) is not None:
        raise NotImplementedError(f"Logits of {type(base).__name__} are not a product with one matrix")
    scale = 1.0
    for name, power in LOGIT_SCALES.items():
        scale *= float(getattr(config, name, None) or 1.0) ** power
    cap = getattr(config, "final_logit_softcapping", None)
    return Unembedding(torch.as_tensor(head.weight), scale, float(cap) if cap else None)
