"""The sizes of a decoder-only model, from its configuration alone, and the operations that work takes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model
from transformers import PreTrainedConfig

from gradinoc.measure.training.adapters import lora_config
from gradinoc.models.adapters import map_shapes, targets
from gradinoc.models.blocks import decoder_blocks, layer_configs
from gradinoc.models.files import skeleton
from gradinoc.models.machine.memory import OF_ADAPTER, TrainingMemory, training_memory
from gradinoc.pipeline.steps.work import READ, TRAIN, Work
from gradinoc.study.settings import TrainingSettings


@dataclass(frozen=True)
class Shapes:
    """The sizes of a decoder-only model, from its configuration alone.

    Attributes:
        block: (in, out) of each linear map of one decoder block, of the most frequent kind.
        layers: decoder blocks, taken to be alike.
        cache: numbers that a block keeps of a token while it generates, keys and values.
        head: weights of the map to the vocabulary.
        weights: all weights, the embedding's once where it is shared.
        adapted: where the adapters are, and where not, in a sentence.
        training: bytes of a training step, in the dtype that the model is held in.
        width: numbers in a hidden state.
    """

    block: tuple[tuple[int, int], ...]
    layers: int
    cache: int
    head: int
    weights: int
    adapted: str
    training: TrainingMemory
    width: int

    def flops(self, work: Work) -> float:
        """Return the floating-point operations of `work`, attention left out: a few percent at a study's lengths.

        A pass takes 2 a weight and token, as much again back to the states; adapters take 6. Source: Kaplan et al.
        2020, section 2.1, https://arxiv.org/abs/2001.08361, less the gradients of frozen weights.
        """
        of_block = sum(into * out for into, out in self.block)
        forward = 2 * (self.layers * of_block * work.tokens + self.head * work.logits)
        adapter = 6 * self.training.adapter / OF_ADAPTER * work.tokens if work.backward == TRAIN else 0
        return float(forward if work.backward == READ else 2 * forward + adapter)


def shapes_of(config: PreTrainedConfig, dtype: torch.dtype, settings: TrainingSettings, fused: bool) -> Shapes:
    """Return the sizes of the model that `config` describes, held in `dtype`, with adapters as the study trains them.

    No weight is read or made. `fused` says whether the study's own kernels will be used, which hold no copies.
    """
    with torch.device("meta"):
        model = skeleton(config, dtype)
        model.requires_grad_(False)
        text: Any = model.config.get_text_config()
        blocks, found = decoder_blocks(model), targets(model)
        kinds = [map_shapes(block, text) for block in blocks]
        maps = Counter(kinds).most_common(1)[0][0]
        each = layer_configs(text)
        usual: Any = each[kinds.index(maps) % len(each)]  # the configuration of a block of the commonest kind
        weights = sum(parameter.numel() for parameter in model.parameters())
        heads = int(getattr(usual, "num_attention_heads", None) or 0)  # a model without attention has none
        head = int(getattr(usual, "head_dim", None) or text.hidden_size // max(1, heads))
        pairs = int(getattr(usual, "num_key_value_heads", None) or heads)
        training = training_memory(get_peft_model(model, lora_config(model, settings)), fused)
    output = int(text.hidden_size) * int(text.vocab_size)
    return Shapes(maps, len(blocks), 2 * pairs * head, output, weights, str(found), training, int(text.hidden_size))
