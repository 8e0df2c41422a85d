"""What a model's configuration says of its size: weights, floating-point operations of a token, memory of a step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model
from transformers import PreTrainedConfig

from gradinoc.measure.training.run import lora_config
from gradinoc.models.adapters import map_shapes, targets
from gradinoc.models.blocks import decoder_blocks, layer_configs
from gradinoc.models.files import skeleton
from gradinoc.models.memory import OF_ADAPTER, TrainingMemory, training_memory
from gradinoc.pipeline.estimates.passes import Work
from gradinoc.study.description import TrainingSettings


@dataclass(frozen=True)
class Shapes:
    """The matrix products of a decoder-only model, from its configuration alone.

    Attributes:
        block: (in, out) of each linear map of one decoder block, of the most frequent kind; see `map_shapes`.
        layers: decoder blocks, taken to be alike.
        attention: width of the queries of one block: heads x size of a head.
        cache: numbers that a block keeps of a token while it generates, keys and values.
        hidden: width of the residual stream.
        vocabulary: tokens in the vocabulary.
        weights: all weights, the embedding's once where it is shared.
        adapter: weights of the adapters, all blocks together.
        adapted: where the adapters are, and where not, in a sentence.
        training: bytes of a training step, in the dtype that the model is held in.
    """

    block: tuple[tuple[int, int], ...]
    layers: int
    attention: int
    cache: int
    hidden: int
    vocabulary: int
    weights: int
    adapter: int
    adapted: str
    training: TrainingMemory

    def flops(self, work: Work) -> float:
        """Floating-point operations of `work`: two for each number of a matrix product, norms and the like left out.

        A pass takes 2 operations a weight and token, and its attention 4 x width for each pair of tokens (scores, and
        the sum of values); a backward pass to the states alone as much again, attention twice as much. Adapters add 2
        operations a weight forwards, and 4 backwards, where they learn. Source: Kaplan et al. 2020, section 2.1,
        https://arxiv.org/abs/2001.08361; Hoffmann et al. 2022, appendix F, https://arxiv.org/abs/2203.15556; less the
        gradients of weights that are frozen.
        """
        of_block = sum(into * out for into, out in self.block)
        adapter = self.adapter / self.layers if work.adapted else 0
        forward = 2 * (of_block + adapter) * work.tokens + 4 * self.attention * work.pairs
        logits = 2 * self.hidden * self.vocabulary * work.logits
        if not work.learns:
            return float(self.layers * forward + logits)
        back = 4 * adapter if work.trains else 2 * adapter
        backward = (2 * of_block + back) * work.tokens + 8 * self.attention * work.pairs
        below = self.layers if work.trains else self.layers - 1  # a frozen model's first block is not gone back through
        return float(self.layers * forward + below * backward + 2 * logits)


def shapes_of(config: PreTrainedConfig, dtype: torch.dtype, settings: TrainingSettings, fused: bool) -> Shapes:
    """The shapes of the model that `config` describes, held in `dtype`, with adapters as the study trains them.

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
    return Shapes(
        block=maps, layers=len(blocks), attention=heads * head, cache=2 * pairs * head, hidden=int(text.hidden_size),
        vocabulary=int(text.vocab_size), weights=weights, adapter=training.adapter // OF_ADAPTER, adapted=str(found),
        training=training,
    )  # fmt: skip
