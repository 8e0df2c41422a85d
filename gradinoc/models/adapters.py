"""Which linear maps of a model get a LoRA adapter, and why others do not.

Decided by types, names and code alone: a plan and a check, which have a model without weights, find what a study does.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import (
    convert_peft_adapter_state_dict_for_transformers,
    convert_peft_config_for_transformers,
)
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gradinoc.errors import ModelError
from gradinoc.models.blocks import decoder_blocks

# What a module that weighs experts, or chooses among them, is called: itself, what it lies in, or its class.
ROUTER = re.compile(r"(^|_)(router|gating)(_|$)|^gate$|experts?_gate$")
ROUTER_CLASS = re.compile(r"Router")
# Chooses the tokens that attention looks at, and a choice has no gradient.
INDEXER = re.compile(r"^indexer$")
# Attention to the states of an encoder, which a causal language model is never given.
ACROSS = re.compile(r"^(encoder_attn|cross_?attn|cross_?attention)$")
# A weight or bias that a module's code takes from one of its children, whose own forward is then not called. What asks
# for no more than a dtype, device or shape is left out, and so are the slices of Bloom's tensor parallelism.
READ = re.compile(r"\bself\.(\w+)\.(?:weight|bias)\b(?!\.(?:dtype|device|shape|size)\b|\[)")
NOTE = "LoRA on "  # how the note on a model's adapters begins
OUTSIDE = "outside the decoder blocks"
BLOCK = re.compile(r"^.*?\.\d+\.")  # what a name begins with, up to the number of its block
TOP = re.compile(r"\.\d+\..*$")  # what a name goes on with after the first number in it
ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")


@dataclass(frozen=True)
class Targets:
    """Where the adapters of a model go.

    Attributes:
        adapted: names of the linear maps that get one, in the model's order.
        left: name -> why a linear map, or a tensor of experts, gets none, in the model's order.
        blocks: decoder blocks of the model.
    """

    adapted: tuple[str, ...]
    left: dict[str, str]
    blocks: int

    def __str__(self) -> str:
        """A sentence that begins with `NOTE`: what is adapted, and what is not."""
        kinds = dict.fromkeys(map(kind, self.adapted))
        note = f"{NOTE}{len(self.adapted)} linear maps of {self.blocks} decoder blocks: {', '.join(kinds)}"
        return f"{note}; left alone: {self.alone()}" if self.left else note

    def alone(self) -> str:
        """What is left alone, by reason."""
        reasons: dict[str, dict[str, None]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, {})[TOP.sub("", name) if reason == OUTSIDE else kind(name)] = None
        return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def targets(model: PreTrainedModel) -> Targets:
    """Where the adapters of `model` go: on every linear map of its decoder blocks that training can change.

    Left alone are routers, experts that share one tensor, maps whose module is never called (fused kernels read their
    weight), maps without a gradient, and those that PEFT takes for something else when it loads an adapter.

    Raises:
        ModelError: no map is left.
    """
    blocks = decoder_blocks(model)
    within = {id(module) for block in blocks for module in block.modules()}
    head, mistaken = model.get_output_embeddings(), _mistaken(model)
    adapted: list[str] = []
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        if id(module) in within:
            left |= {f"{name}.{tensor}": reason for tensor, reason in _tensors(module)}
            reason = _reason(model, name, mistaken) if is_linear(module) else None
        else:
            reason = OUTSIDE if module is not head else None
        if is_linear(module) and module is not head:
            if reason is None:
                adapted.append(name)
            else:
                left[name] = reason
    found = Targets(tuple(adapted), left, len(blocks))
    if not adapted:
        why = f" ({found.alone()})" if left else ""
        raise ModelError(
            f"{type(model).__name__}: no linear map in its decoder blocks that an adapter could be put on{why}; give "
            "a model whose blocks have plain linear maps"
        )
    return found


def note(model: PreTrainedModel) -> str:
    """`targets` of a model as a sentence, or why it gets no adapter."""
    try:
        return str(targets(model))
    except ModelError as error:
        return str(error)


def kind(name: str) -> str:
    """What a linear map is called in its block, without the numbers of experts and the like."""
    return ".".join(part for part in BLOCK.sub("", name).split(".") if not part.isdecimal())


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map: torch's, one derived from it, or GPT-2's, which is stored transposed."""
    return isinstance(module, nn.Linear | Conv1D)


def map_shapes(block: nn.Module, config: PreTrainedConfig) -> tuple[tuple[int, int], ...]:
    """(in, out) of each frozen linear map of `block` that a token goes through, of experts as many as it is sent to."""
    found: list[tuple[int, int]] = []
    for module in block.modules():
        if isinstance(module, nn.Linear) and not module.weight.requires_grad:
            found.append((module.in_features, module.out_features))
        elif isinstance(module, Conv1D) and not module.weight.requires_grad:
            found.append((int(module.weight.shape[0]), int(module.weight.shape[1])))
        elif not is_linear(module):
            tensors = module.named_parameters(recurse=False)
            experts = [weight.shape[-2:] for name, weight in tensors if _holds_experts(module, name)]
            found += [(int(into), int(out)) for out, into in experts] * _active(config)
    return tuple(found)


def _active(config: PreTrainedConfig) -> int:
    """To how many experts a token is sent."""
    return int(next((getattr(config, name) for name in ACTIVE if getattr(config, name, None)), 1))


def _reason(model: nn.Module, name: str, mistaken: frozenset[str]) -> str | None:
    """Why the linear map called `name` gets no adapter, None if it does."""
    parts = name.split(".")
    around = [model.get_submodule(".".join(parts[:depth])) for depth in range(1, len(parts) + 1)]
    parent, module = ([model, *around])[-2], around[-1]
    if any(map(ROUTER.search, parts)) or any(ROUTER_CLASS.search(type(each).__name__) for each in around):
        return "router"
    if any(map(INDEXER.search, parts)):
        return "without a gradient: it chooses tokens"
    if any(map(ACROSS.search, parts)):
        return "not run: there is no encoder"
    if parts[-1] in _read_from_children(parent):
        return "its weight is read without a call, as fused kernels do"
    if not _is_plain(module):
        return f"no plain linear map but a {type(module).__name__}"
    if name in mistaken:
        return "PEFT would load its adapter as that of another"
    return None


def _read_from_children(module: nn.Module) -> frozenset[str]:
    """Names of the children whose weight or bias the code of a module reads."""
    classes = [each for each in type(module).__mro__ if issubclass(each, nn.Module) and each is not nn.Module]
    functions = [member for each in classes for member in vars(each).values() if callable(member)]
    return frozenset().union(*map(_names_read, functions))


@cache
def _names_read(function: Callable[..., Any]) -> frozenset[str]:
    with suppress(OSError, TypeError):  # none, or one whose code is not there to be read
        return frozenset(READ.findall(inspect.getsource(function)))
    return frozenset()


def _is_plain(module: Any) -> bool:
    """Whether a linear map takes `[..., in]` to `[..., out]`, tried with shapes alone where its class has its own way.

    Some routers are linear maps that return a tuple; some maps take a part of their input each.
    """
    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    weights = {name: torch.empty_like(weight, device="meta") for name, weight in module.named_parameters()}
    states = torch.empty(1, 1, module.in_features, dtype=module.weight.dtype, device="meta")
    try:
        mapped = functional_call(module, weights, (states,))
    except Exception:  # a forward of its own that fails is not a plain one
        return False
    return isinstance(mapped, torch.Tensor) and mapped.shape == (1, 1, module.out_features)


def _mistaken(model: PreTrainedModel) -> frozenset[str]:
    """Names of linear maps whose adapters PEFT would not put back where they were, when it loads them.

    Experts and others were called differently in transformers 4, and what PEFT loads it takes to be from there: it
    renames an adapter's targets and weights as a model's, on some families those of modules that never were experts.
    """
    names = [name for name, module in model.named_modules() if is_linear(module)]
    keys = {name: f"base_model.model.{name}.lora_A.weight" for name in names}
    none = torch.empty(1, 1, device="meta")
    converted: dict[str, Any] = {}
    with suppress(Exception):  # weights that it would put together, and cannot
        converted = convert_peft_adapter_state_dict_for_transformers(
            model, LoraConfig(target_modules=names), dict.fromkeys(keys.values(), none)
        )
    kept = {last: _kept(last, model) for last in {name.rpartition(".")[2] for name in names}}
    return frozenset(name for name in names if keys[name] not in converted or not kept[name.rpartition(".")[2]])


def _kept(name: str, model: PreTrainedModel) -> bool:
    """Whether PEFT leaves the target `name` as it is."""
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one of several that it would put together
        return False
    return set(config.target_modules or ()) == {name} and not config.target_parameters


def _tensors(module: nn.Module) -> Iterator[tuple[str, str]]:
    """(name, what it is) of a module's own tensors that are routers or experts without being linear maps."""
    if is_linear(module):
        return
    for name, weight in module.named_parameters(recurse=False):
        if ROUTER_CLASS.search(type(module).__name__) and weight.dim() > 1:
            yield name, "router"
        elif _holds_experts(module, name):
            yield name, f"{len(weight)} experts in one tensor" if weight.dim() > 2 else "experts in one tensor"


def _holds_experts(module: nn.Module, name: str) -> bool:
    """Whether the tensor `name` of a module holds the linear maps of experts."""
    return "Expert" in type(module).__name__ and "bias" not in name and getattr(module, name).dim() > 1
