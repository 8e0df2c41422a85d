"""Put the kernels in the place of a model's own modules, where a trial shows the same numbers."""

from __future__ import annotations

import dis
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from itertools import product
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from gradinoc.measure.fast.kernels import rms_norm, rotate, swiglu
from gradinoc.measure.fast.packed.forward import PACKED, handing, is_fused
from gradinoc.measure.fast.recurrent import recurrence_of
from gradinoc.measure.fast.trial import RoundingError, UntrustedError, own_results, random_rows, try_kernels
from gradinoc.models.blocks import decoder_blocks, is_swiglu, layer_configs

# Names of settings that say how far a token sees, how many others it sees, or how long a piece is.
WINDOW = re.compile(r"^(?!.*(layers|pattern)).*(window|chunk|block_size|index_topk|floor_scale)")


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
        rows: texts as token ids to try it on, of `trial.LENGTHS` tokens: the first two, and all where rounding speaks
            against kernels on those. Random tokens if none are given, of which gradients in half precision are little
            more than rounding for some models.
        trial: whether to try it.
    """
    if is_fused(model):
        return ["fused already"]
    own = model.config._attn_implementation
    unfit = _unfit(model)
    if unfit:
        return [f"plain modules: {unfit}"]
    texts = [torch.tensor(row, device=model.device) for row in rows] or random_rows(model)
    words, rounded = "", False
    # A model may turn a part of each head as ours does not; and on a few dozen tokens rounding is a matter of chance.
    for parts, tried in product((EVERY_PART, (_norm_of, _gate_of)), dict.fromkeys((2, len(texts)))):
        if tried > 2 and not rounded:
            continue
        replaced: list[Any] = []
        try:
            expected = own_results(model, texts[:tried]) if trial else None
            _put_in_place(model, parts, replaced)
            found = "" if expected is None else try_kernels(model, texts[:tried], expected)
            return [f"{len(replaced)} modules fused{found and f', {found}'}; sequences packed"]
        except UntrustedError as error:
            words, rounded = str(error), isinstance(error, RoundingError)
        except Exception as error:  # a model that cannot be tried is one to leave alone, whatever it says
            words, rounded = f"fused ones do not fit ({error})", False
        _restore(model, replaced, own)
    return [f"plain modules: {words}"]


def _put_in_place(model: PreTrainedModel, parts: Sequence[Callable[[Any], Any]], replaced: list[Any]) -> None:
    """Give modules a forward of ours; `replaced` receives them."""
    replaced += [module for module in model.modules() if _replace(module, (*parts, recurrence_of))]
    replaced += [block for block in decoder_blocks(model) if _replace(block, (_keeping_of,))]
    head: Any = model.get_output_embeddings()
    if type(head) is nn.Linear:
        replaced.append(head)
        replaced[-1].forward = MethodType(_logits, head)
    model.config._attn_implementation = PACKED


def unfuse(model: PreTrainedModel) -> bool:
    """Give a model that PEFT does not wrap its own modules back; whether it was fused."""
    fused = is_fused(model)
    if fused:
        own = "sdpa" if model._supports_sdpa else "eager"
        _restore(model, [module for module in model.modules() if "forward" in vars(module)], own)
    return fused


def _restore(model: PreTrainedModel, replaced: Sequence[Any], attention: str) -> None:
    model.config._attn_implementation = attention
    for module in replaced:
        del module.forward  # the class's own is underneath


def _unfit(model: PreTrainedModel) -> str | None:
    """Why the kernels are not for `model`, if that needs no trial."""
    own, settings = model.config._attn_implementation, model.config.get_text_config()
    calls = _attention_calls(model)
    # Scores with a cap are computed eagerly for want of another way; for other models eager attention is a choice.
    capped = bool(calls) and all("softcap" in words for words in calls) and not model._supports_sdpa
    if own != ("eager" if capped else "sdpa"):
        return f"attention is {own}"
    if any(getattr(settings, name, 0) for name in ("attention_dropout", "attn_pdrop")):
        return "attention drops out in training"
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if trained:  # kernels have no gradients for weights
        return f"{len(trained)} of its weights are not frozen ({trained[0]})"
    sizes, kinds = windows(settings), getattr(settings, "layer_types", None)
    if not sizes or (kinds is not None and set(kinds) == {"full_attention"}):
        return None
    # A window may be in the mask alone, of which packed attention knows nothing, or may be another kind of limit.
    if set(sizes) == {"sliding_window"} and calls and all("sliding_window" in words for words in calls):
        return None
    return f"{', '.join(f'{name} of {size} tokens' for name, size in sizes.items())}, which packed attention has not"


def _attention_calls(model: nn.Module) -> list[set[str]]:
    """The words in the code of every kind of attention of the decoder, among them the arguments that it hands over."""
    decoder: Any = model.get_decoder() if isinstance(model, PreTrainedModel) else model
    kinds = {type(module) for module in decoder.modules()}
    codes = [code for kind in kinds if (code := getattr(kind.forward, "__code__", None))]
    calls = [code for code in codes if "ALL_ATTENTION_FUNCTIONS" in code.co_names]
    return [{word for names in code.co_consts if isinstance(names, tuple) for word in names} for code in calls]


def _replace(module: nn.Module, parts: Sequence[Callable[[Any], Any]]) -> bool:
    """Whether a module of the model was given a forward of ours, by one of the `parts`."""
    own: Any = module
    forward = next(filter(None, (part(own) for part in parts)), None)
    if forward is None:
        return False
    own.forward = MethodType(forward, module)
    return True


def _norm_of(module: Any) -> Any:
    is_norm = type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
    return _norm if is_norm else None


def _gate_of(module: Any) -> Any:
    return _gated if is_swiglu(module) else None


def _rotation_of(module: Any) -> Any:
    forward = type(module).forward
    turns = "apply_rotary_pos_emb" in getattr(getattr(forward, "__code__", None), "co_names", ())
    return _with_rotation(forward) if turns else None


def _keeping_of(block: Any) -> Any:
    """For a block whose attention is not given what the block is given beside its arguments (Nemotron, StableLM)."""
    forward = type(block).forward
    inner = inspect.unwrap(forward)
    code = getattr(inner, "__code__", None)
    if code is None or not code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    further = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
    if any(each.argval == further for each in dis.get_instructions(code)):
        return None

    def keeping(own: Any, *given: Any, **named: Any) -> Any:
        if named.get("layout") is None:
            return forward(own, *given, **named)

        def inside(*arguments: Any) -> Any:
            with handing(named["layout"], named.get("past")):
                return inner(own, *arguments, **named)

        # What is around `inner` checkpoints it alone: its second run would know of no layout.
        checkpointed = own.training and getattr(own, "gradient_checkpointing", False)
        return own._gradient_checkpointing_func(inside, *given) if checkpointed else inside(*given)

    return keeping


EVERY_PART = (_norm_of, _gate_of, _rotation_of)


def _logits(module: Any, hidden: Tensor) -> Tensor:
    """As one product: of a slice of a batch, torch makes a product for each row, with a copy of the weights each."""
    return nn.functional.linear(hidden.flatten(0, -2), module.weight, module.bias).view(*hidden.shape[:-1], -1)


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, module.weight, module.variance_epsilon)


def _gated(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    # Without gradients the two can be overwritten: a pass over memory in cache costs half as much.
    inner = swiglu(gate, up) if torch.is_grad_enabled() else nn.functional.silu(gate, inplace=True).mul_(up)
    return torch.as_tensor(module.down_proj(inner))


def _with_rotation(forward: Any) -> FunctionType:
    """A copy of an attention's forward that calls our rotation by the name of transformers' own."""
    names = {**forward.__globals__, "apply_rotary_pos_emb": rotate}
    copy = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    copy.__kwdefaults__ = forward.__kwdefaults__
    return copy
