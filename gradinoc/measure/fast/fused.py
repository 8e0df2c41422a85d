"""Put the kernels in the place of a model's own parts, where a trial shows the same numbers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FunctionType, MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.linalg import vector_norm
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from gradinoc.measure.fast.kernels import (
    lora_linear,
    packed_attention,
    rms_norm,
    rotate,
    shared_attention,
    swiglu,
    token_losses,
)
from gradinoc.models.blocks import layer_configs, unwrapped

PACKED = "packed_sdpa"  # name of the attention implementation, and the mark of a fused model
# Largest relative difference of losses and of gradients that a trial may show: rounding, seen through every block.
# In bfloat16 the gradient at the embedding is 0.06 to 0.18 from float32's with a model's own modules and 0.08 to 0.10
# with the kernels, on text (SmolLM2, Qwen2.5-Coder); the two are up to 0.15 apart.
TRIAL_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.25}
LOSS_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
TRIAL_LENGTHS = (7, 12)  # tokens
# Names of settings that say how far a token sees, how many others it sees, or how long a piece is.
WINDOW = re.compile(r"^(?!.*(layers|pattern)).*(window|chunk|block_size|index_topk|floor_scale)")
# What some models do to logits after the product.
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


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
    unknown = [name for name in ("sliding_window", "softcap", "s_aux", "dropout") if options.get(name)]
    if unknown:
        raise NotImplementedError(f"packed sequences with {unknown}")
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if any(below):
        return shared_attention(query, key, value, lengths, below, scale).transpose(1, 2), None
    return packed_attention(query, key, value, lengths, scale).transpose(1, 2), None


AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def is_fused(model: nn.Module) -> bool:
    """Whether the parts of `model` are replaced, so that it takes packed sequences."""
    return bool(getattr(getattr(unwrapped(model), "config", None), "_attn_implementation", None) == PACKED)


def windows(config: PreTrainedConfig) -> dict[str, int]:
    """How many tokens the model sees back, or takes at a time, by the name of the setting, where that ends somewhere.

    The largest of its layers'. Sizes beyond the model's context bind nothing and are left out.
    """
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    largest: dict[str, int] = {}
    for each in layer_configs(config):
        for name, size in vars(each).items():
            if WINDOW.search(name) and type(size) is int and 1 < size < context:
                largest[name] = max(size, largest.get(name, 0))
    return largest


def fuse(model: PreTrainedModel, rows: Sequence[Sequence[int]] = (), trial: bool = True) -> list[str]:
    """Note on a frozen model whose norms, gates, rotations and attention are replaced; or why they are not.

    They stay replaced only if losses of packed sequences, and their gradients, agree with the model's own. Without
    `trial` that is taken on trust, for a model that has shapes and no numbers.

    Args:
        model: of transformers, its weights frozen.
        rows: two texts as token ids to try it on; random tokens if none are given, of which gradients in half precision
            are little more than rounding for some models.
        trial: whether to try it.
    """
    if is_fused(model):
        return ["fused already"]
    own = model.config._attn_implementation
    unfit = _unfit(model)
    if unfit:
        return [f"plain modules: {unfit}"]
    replaced: list[Any] = []
    texts = [torch.tensor(row, device=model.device) for row in rows] or _random_rows(model)
    try:
        expected = _trial(model, texts) if trial else []
        replaced += [module for module in model.modules() if _replace(module)]
        head: Any = model.get_output_embeddings()
        if type(head) is nn.Linear:
            replaced.append(head)
            replaced[-1].forward = MethodType(_logits, head)
        model.config._attn_implementation = PACKED
        reason = _disagreement(model, texts, expected) if trial else None
    except Exception as error:  # a model that cannot be tried is one to leave alone, whatever it says
        reason = f"fused ones do not fit ({error})"
    if reason is None:
        return [f"{len(replaced)} modules fused; sequences packed"]
    _restore(model, replaced, own)
    return [f"plain modules: {reason}"]


def unfuse(model: PreTrainedModel) -> None:
    """Give a fused model, not wrapped by PEFT, its own modules back."""
    if is_fused(model):
        _restore(model, [module for module in model.modules() if "forward" in vars(module)], "sdpa")


def _restore(model: PreTrainedModel, replaced: Sequence[Any], attention: str) -> None:
    model.config._attn_implementation = attention
    for module in replaced:
        del module.forward  # the class's own is underneath


def _disagreement(model: PreTrainedModel, rows: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """Why the kernels in place are not to be trusted; None where losses and gradients are the `expected` ones."""
    losses, gradients = _packed_trial(model, rows)
    for apart, most in (
        (_difference(expected[:1], [losses]), LOSS_TOLERANCE[model.dtype]),
        (_difference(expected[1:], [gradients]), TRIAL_TOLERANCE[model.dtype]),
        (_branches_apart(model, rows), TRIAL_TOLERANCE[model.dtype]),
    ):
        if not apart <= most:
            return f"fused ones are {apart:.2g} away"
    return None


def _unfit(model: PreTrainedModel) -> str | None:
    """Why the kernels are not for `model`, if that needs no trial."""
    own, settings = model.config._attn_implementation, model.config.get_text_config()
    if own != "sdpa":
        return f"attention is {own}"
    if any(getattr(settings, name, 0) for name in ("attention_dropout", "attn_pdrop")):
        return "attention drops out in training"
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if trained:  # kernels have no gradients for weights
        return f"{len(trained)} of its weights are not frozen ({trained[0]})"
    # The window may be in the mask alone, of which packed attention knows nothing.
    kinds = getattr(settings, "layer_types", None)
    if (sizes := windows(settings)) and (kinds is None or set(kinds) != {"full_attention"}):
        return (
            f"{', '.join(f'{name} of {size} tokens' for name, size in sizes.items())}, which packed attention has not"
        )
    return None


def _random_rows(model: PreTrainedModel) -> list[Tensor]:
    generator, vocabulary = torch.Generator().manual_seed(0), model.config.get_text_config().vocab_size
    return [torch.randint(vocabulary, (length,), generator=generator).to(model.device) for length in TRIAL_LENGTHS]


@torch.enable_grad()
def _trial(model: PreTrainedModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """Losses of each of the sequences alone, and their gradients with respect to the embedded tokens."""
    embedding: Any = model.get_input_embeddings()
    found = []
    for row in rows:
        embedded = embedding(row[None]).detach().requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False).logits[0]
        one = nn.functional.cross_entropy(logits[:-1].float(), row[1:], reduction="sum")
        found.append((one.detach(), torch.autograd.grad(one, embedded)[0][0].float()))
    return [torch.stack([one for one, _ in found]), torch.cat([gradient for _, gradient in found])]


@torch.enable_grad()
def _packed_trial(model: PreTrainedModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """As `_trial`, of packed sequences.

    Raises:
        NotImplementedError: a loss depends on the other sequence or on a later token.
    """
    embedding: Any = model.get_input_embeddings()
    embedded = embedding(torch.cat(list(rows))[None]).detach().requires_grad_()
    hidden, weight = final_states(model, [len(row) for row in rows], inputs_embeds=embedded), unembedding(model)
    losses, gradients, begin = [], [], 0
    for row in rows:
        end = begin + len(row)
        # First the earlier tokens of a sequence, then the later ones: what the former may not see is exactly zero.
        for start, stop in pairwise((begin, begin + len(row) // 2, end - 1)):
            targets = row[start - begin + 1 : stop - begin + 1]
            losses.append(token_losses(hidden[start:stop], weight, targets).sum())
            gradients.append(torch.autograd.grad(losses[-1], embedded, retain_graph=True)[0][0].float())
            if gradients[-1][:begin].any() or gradients[-1][end:].any():
                raise NotImplementedError("a packed sequence sees its neighbour")
            if gradients[-1][stop:end].any():
                raise NotImplementedError("a packed token sees later ones")
        begin = end
    return [torch.stack(losses).detach().view(len(rows), -1).sum(1), torch.stack(gradients).sum(0)]


@torch.no_grad()
def _branches_apart(model: PreTrainedModel, rows: Sequence[Tensor]) -> float:
    """How far final states of two sequences that share their beginning are from those of each alone, relative.

    The first of the `rows` is the beginning; the second, in two parts, is what goes on from it.
    """
    stem, rest = rows
    branches = rest.split([len(rest) // 2, len(rest) - len(rest) // 2])
    alone = torch.cat([each for branch in branches for each in (stem, branch)])
    expected = final_states(model, [len(stem) + len(branch) for branch in branches], input_ids=alone[None])
    places = [torch.arange(len(stem)), *(len(stem) + torch.arange(len(branch)) for branch in branches)]
    inputs = {"input_ids": torch.cat([stem, rest])[None], "position_ids": torch.cat(places)[None].to(model.device)}
    lengths, below = [len(stem), *map(len, branches)], [len(rest), 0, 0]
    found = final_states(model, lengths, below, **inputs).split(lengths)
    received = torch.cat([found[0], found[1], found[0], found[2]])
    return _difference([expected.float()], [received.float()])


def _difference(expected: Sequence[Tensor], received: Sequence[Tensor]) -> float:
    """The largest difference, each relative to its own norm."""
    pairs = zip(expected, received, strict=True)
    return float(
        torch.stack([vector_norm(one - other) / vector_norm(one).clamp_min(1e-12) for one, other in pairs]).max()
    )


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


def unembedding(model: nn.Module) -> Tensor:
    """The frozen matrix `[vocabulary, hidden]` that turns final states into logits.

    Raises:
        NotImplementedError: logits are more than a product with it.
    """
    base: Any = unwrapped(model)
    head: Any = base.get_output_embeddings()
    config: Any = base.config.get_text_config()
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in LOGIT_SETTINGS)
    if type(head) is not nn.Linear or getattr(head, "bias", None) is not None or scaled:
        raise NotImplementedError(f"Logits of {type(base).__name__} are not a product with one matrix")
    return torch.as_tensor(head.weight)


def _replace(module: nn.Module) -> bool:
    """Whether a module of the model was given a forward of ours."""
    own: Any = module
    forward: Any = None
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        forward = _norm
    elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")) and _is_silu(own.act_fn):
        forward = _gated
    elif "apply_rotary_pos_emb" in getattr(getattr(type(module).forward, "__code__", None), "co_names", ()):
        forward = _with_rotation(type(module).forward)
    if forward is None:
        return False
    own.forward = MethodType(forward, module)
    return True


def _is_silu(function: Any) -> bool:
    return isinstance(function, nn.SiLU) or type(function).__name__ == "SiLUActivation"


def _logits(module: Any, hidden: Tensor) -> Tensor:
    """As one product: of a slice of a batch, torch makes a product for each row, with a copy of the weights each."""
    return nn.functional.linear(hidden.flatten(0, -2), module.weight, module.bias).view(*hidden.shape[:-1], -1)


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, module.weight, module.variance_epsilon)


def _gated(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    # Without gradients nobody needs the two any more: a pass over memory that is at hand costs half as much.
    inner = swiglu(gate, up) if torch.is_grad_enabled() else nn.functional.silu(gate, inplace=True).mul_(up)
    return torch.as_tensor(module.down_proj(inner))


def _with_rotation(forward: Any) -> FunctionType:
    """A copy of an attention's forward that calls our rotation by the name of transformers' own."""
    names = {**forward.__globals__, "apply_rotary_pos_emb": rotate}
    copy = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    copy.__kwdefaults__ = forward.__kwdefaults__
    return copy


@contextmanager
def fused_adapter(model: nn.Module) -> Iterator[None]:
    """Inside the block the one active adapter of a fused, PEFT-wrapped model is computed by `lora_linear`."""
    layers: list[Any] = [module for module in model.modules() if _is_plain_lora(module)] if is_fused(model) else []
    for layer in layers:
        layer.forward = MethodType(_adapted, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain_lora(module: nn.Module) -> bool:
    """Low-rank updates of an ordinary linear map, without dropout or variants of LoRA."""
    if not isinstance(module, LoraLayer) or not isinstance(module.base_layer, nn.Linear):
        return False
    return not _is_special(module)


def _is_special(layer: Any) -> bool:
    """Whether an adapter is more than two factors: a variant of LoRA, dropout, a bias of its own, merged weights."""
    biased = any(up.bias is not None for up in layer.lora_B.values())
    dropout = any(not isinstance(each, nn.Identity) for each in layer.lora_dropout.values())
    return bool(layer.lora_variant) or biased or dropout or layer.merged


def _adapted(layer: Any, x: Tensor) -> Tensor:
    if layer.disable_adapters:
        return torch.as_tensor(layer.base_layer(x))
    (name,) = layer.active_adapters
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return lora_linear(x, (layer.base_layer.weight, layer.base_layer.bias), down, up, layer.scaling[name])


@contextmanager
def stacked_adapters(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside the block a batch is in as many equal parts as there are `names`, each seen through its own adapter.

    The adapters have one rank; there are no gradients. A name "" stands for no adapter at all.

    Raises:
        NotImplementedError: an adapter is more than two factors of a linear map.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    special = [type(layer).__name__ for layer in layers if not isinstance(layer, LoraLayer) or _is_special(layer)]
    if special:
        raise NotImplementedError(f"Stacked adapters of {sorted(set(special))}: expected plain low-rank updates")
    for layer in layers:
        layer.forward = MethodType(_stacked(layer, names), layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _stacked(layer: Any, names: Sequence[str]) -> Any:
    like = next(layer.base_layer.parameters())
    known = next(iter(layer.lora_A))
    down, up = (
        torch.stack([side[name or known].weight.T * (scale if name else 0.0) for name, scale in scales]).to(like.dtype)
        for side, scales in (
            (layer.lora_A, [(name, 1.0) for name in names]),
            (layer.lora_B, [(name, layer.scaling[name or known]) for name in names]),
        )
    )

    def forward(own: Any, x: Tensor) -> Tensor:
        result = own.base_layer(x)
        parts = x.reshape(len(names), -1, x.shape[-1])
        return torch.as_tensor(result.view(len(names), -1, result.shape[-1]).baddbmm_(parts @ down, up).view_as(result))

    return forward
