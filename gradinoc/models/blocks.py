"""Where the decoder blocks of a language model are, whatever wraps it."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from gradinoc.errors import ModelError, shown


def decoder_blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks of `model`, first to last, whether it is wrapped by PEFT or not.

    They are the longest list of modules in the decoder that is not part of another such list.

    Raises:
        ModelError: no decoder-only transformer with blocks in a `ModuleList`; the message names the class.
    """
    base: Any = unwrapped(model)
    config = getattr(base, "config", None)
    lists = _lists(decoder_of(model))
    outermost = [
        module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists if other != name)
    ]
    if not outermost or getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"No decoder blocks in {type(base).__name__}: expected a decoder-only transformer whose blocks "
            f"are one ModuleList, found {shown(sorted(lists)) if lists else 'none'}; give another model"
        )
    return max((list(blocks) for blocks in outermost), key=len)


def decoder_of(model: nn.Module) -> nn.Module:
    """The module that takes token ids and runs the blocks, without the head."""
    base: Any = unwrapped(model)
    decoder = base.get_decoder() if isinstance(base, PreTrainedModel) else base
    if not _lists(decoder):  # ModernBERT calls its head a decoder
        decoder = getattr(base, "base_model", decoder)
    found: nn.Module = decoder
    return found


def layer_configs(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """The configuration of each decoder block; of all of them at once, a list of one, where they do not differ.

    What differs from block to block (Gemma 4: the size of a head) cannot be read off the configuration of the whole.
    """
    text = config.get_text_config()
    return list(text.per_layer_config) if text.is_heterogeneous else [text]


def _lists(module: nn.Module) -> dict[str, nn.ModuleList]:
    return {name: inner for name, inner in module.named_modules() if isinstance(inner, nn.ModuleList)}


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper (its adapters stay in place), or `model` itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner is not None else model


def is_swiglu(module: nn.Module) -> bool:
    """Whether `module` is a gated block whose gate is a SiLU, made of `gate_proj`, `up_proj` and `down_proj`."""
    own: Any = module
    if not all(hasattr(own, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        return False
    return isinstance(own.act_fn, nn.SiLU) or type(own.act_fn).__name__ == "SiLUActivation"
