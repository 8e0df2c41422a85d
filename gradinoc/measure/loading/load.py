"""Language models, loaded frozen by name and checked for causality."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from gradinoc.errors import ModelError, reason, shown
from gradinoc.measure.loading.selftests import SelfTest, examine
from gradinoc.models.adapters import note as adapters_note
from gradinoc.models.chat.template import end_of_turn
from gradinoc.models.files import read_tokenizer, template_notes
from gradinoc.models.machine.device import choose_device, choose_dtype, precision
from gradinoc.models.machine.isolation import own_generators, undisturbed
from gradinoc.models.machine.memory import is_out_of_memory
from gradinoc.models.machine.spread import (
    device_map_of,
    ensure_held,
    held_on,
    keep_stream_together,
    spread_over,
)
from gradinoc.models.sources.accepted import ensure_inert, ensure_unquantised, unpacking
from gradinoc.models.sources.gguf import no_progress_bars
from gradinoc.models.sources.locate import locate
from gradinoc.study.chat_template import DAY, read_template
from gradinoc.study.settings import fault_in_map


@dataclass(frozen=True)
class LanguageModel:
    """A frozen model in eval mode with its tokenizer, whose pad token never ends a turn.

    Attributes:
        name: what it was loaded by.
        fingerprint: identity of its weights, configuration and tokenizer; see `fingerprint`.
        notes: what was decided or worked around while loading, for the report.
        self_tests: what the model was tried on while loading; see `gradinoc.measure.loading.selftests`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    fingerprint: str
    notes: tuple[str, ...]
    self_tests: tuple[SelfTest, ...] = ()

    @property
    def tried(self) -> dict[str, str]:
        """Name of each self-test, with the dtype -> what it came to, in words."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {f"{each.name}, {dtype}": str(each) for each in self.self_tests}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are held in."""
        return next(self.model.parameters()).dtype


@undisturbed()
@own_generators()
def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    kernels: str = "fused",
    device_map: str | None = None,
    chat_template: str | None = None,
    day: date = DAY,
) -> LanguageModel:
    """The model called `name`: a bundled name, a folder, a GGUF file, or a hub id (pinned by `revision`).

    `device` "auto" is cuda, else mps, else cpu. `dtype` "auto" is bfloat16 where the device has it, on a processor
    where it is the faster one, and float32 elsewhere or for fewer than 20 million weights; see
    `gradinoc.models.machine.device.precision`. `kernels` "plain" leaves the model's own modules alone; see
    `gradinoc.measure.fast.fused`. `device_map` ("auto", "balanced", "sequential": accelerate's) spreads the blocks over
    all devices of that kind, with plain kernels alone; see `gradinoc.models.machine.spread`. `chat_template` takes the
    place of the model's own: "plain", the path of a `.jinja` file, or a template's text; templates write every date as
    `day`. Code in a repository is never run.

    Raises:
        ModelError: no such model, hub out of reach, no safetensors, weights that are missing or not finite, or later
            tokens change earlier states.
        DeviceError: no such device or dtype, or devices that do not hold the model together.
        ValueError: other kernels than these two, or fused ones of a model that is spread, or no such template.
    """
    if kernels not in ("fused", "plain"):
        raise ValueError(f"kernels {kernels!r}: expected fused or plain")
    if fault := fault_in_map(device_map, kernels):
        raise ValueError(fault)
    template = None if chat_template is None else read_template(chat_template, Path())
    folder, identity = locate(name, revision)
    ensure_inert(folder)
    ensure_unquantised(folder)
    place = choose_device(device)
    choose_dtype(dtype, place)
    try:
        held_in = precision(dtype, place, lambda: folder)
        with no_progress_bars(), _in_own_words():
            tokenizer = read_tokenizer(folder, template, day)
            # The dtype is given here: a cast afterwards would also round the buffers of the rotary embedding.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=held_in, trust_remote_code=False, use_safetensors=True,
                ignore_mismatched_sizes=True, output_loading_info=True, **unpacking(folder),
                **spread_over(device_map, place),
            )  # fmt: skip
    except Exception as error:  # a damaged file makes the libraries stumble in many ways
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"Cannot load {shown(name)} from {folder} ({reason(error)}); fetch it again or give another model"
        ) from error
    model: PreTrainedModel = loaded[0]
    ensure_held(model)
    unused = ensure_whole(model, loaded[1], str(folder))
    if device_map_of(model):
        keep_stream_together(model)
    else:
        nn.Module.to(model, place)
    notes = [f"{model.config.model_type} on {held_on(model)} in {str(held_in).removeprefix('torch.')}", *unused]
    notes += template_notes(tokenizer, template, day)
    notes += separate_pad_token(model, tokenizer)
    model.eval().requires_grad_(False)
    found = examine(model, tokenizer, kernels)
    notes += [
        adapters_note(model),
        *(each.note for each in found if each.note and each.found is not None),
    ]
    return LanguageModel(model, tokenizer, name, identity, tuple(notes), tuple(found))


def ensure_whole(model: PreTrainedModel, found: Mapping[str, Collection[Any]], place: str) -> list[str]:
    """Notes (none, or what is not used) on a model whose weights all came from the files in `place` and are numbers.

    `found` is what loading found.

    Raises:
        ModelError: some are missing or of another shape, and would be random, or not finite; the message names the
            first.
    """
    missing = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if missing:
        raise ModelError(
            f"{place}: {len(missing)} weights are missing or of another shape, {shown(min(missing))} first, and would "
            f"be random; expected the weights of a {type(model).__name__}; fetch it again or give another model"
        )
    for name, weight in model.named_parameters():
        least, most = weight.aminmax()  # without a copy; not a number if any weight is none
        if not bool((most - least).isfinite()) and not bool(weight.isfinite().all()):
            raise ModelError(
                f"{place}: the weights {shown(name)} are not finite ({int((~weight.isfinite()).sum())} of "
                f"{weight.numel()}); expected numbers; fetch it again, give another model or try model.dtype=float32"
            )
    unused = found["unexpected_keys"]
    more = f"{len(unused)} weights of the files have no place in this model, "
    return [f"{more}{shown(min(unused))} first"] if unused else []


@contextmanager
def _in_own_words() -> Iterator[None]:
    """Silence transformers' own report on weights: `ensure_whole` makes one."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def separate_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Notes (none, or what was done) on a tokenizer that pads with a token which ends no turn.

    An unused special token of the vocabulary serves if there is one, a token in a spare row of the embedding otherwise.
    Where there is neither, the end of the turn serves: padding is masked, and where a completion ends is known from
    lengths. No row is added, which would have a share in every probability.
    """
    ends = {tokenizer.eos_token_id} | ({end_of_turn(tokenizer)} if tokenizer.chat_template is not None else set())
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return []
    special = [
        str(added) for place, added in tokenizer.added_tokens_decoder.items() if added.special and place not in ends
    ]
    spare = next((token for token in special if "pad" in token.lower()), None)
    spare = spare or next((token for token in (tokenizer.unk_token, "<|endoftext|>") if token in special), None)
    if spare is not None:
        tokenizer.pad_token = spare
        return [f"padding with {spare}"]
    embedding: Any = model.get_input_embeddings()
    if len(tokenizer) < embedding.num_embeddings:
        tokenizer.add_special_tokens({"pad_token": "<|gradinoc_pad|>"})
        return ["padding with a token added to the vocabulary in a spare row of the embedding"]
    end = min(each for each in ends if each is not None)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end)
    return [f"padding with {tokenizer.pad_token}, which ends turns: no other token is special; it is masked"]
