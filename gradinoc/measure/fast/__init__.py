"""The fast path: kernels in place of a model's modules, sequences packed without padding.

Everything else in the package computes through the names below, and never asks whether a model is fused.
"""

from gradinoc.measure.fast.adapters import Parts, adapters_in_one_pass, fused_adapter, stacked_adapters, takes_several
from gradinoc.measure.fast.passes import (
    Prompts,
    batched,
    completion_losses,
    frozen_batch,
    logits_of,
    prompt_pass,
    scored_batch,
    sharing_order,
)
from gradinoc.measure.fast.variants import Common, resumed, variants

__all__ = [
    "Common",
    "Parts",
    "Prompts",
    "adapters_in_one_pass",
    "batched",
    "completion_losses",
    "frozen_batch",
    "fused_adapter",
    "logits_of",
    "prompt_pass",
    "resumed",
    "scored_batch",
    "sharing_order",
    "stacked_adapters",
    "takes_several",
    "variants",
]
