"""Language models: loaded frozen by name, checked for causality; their decoder blocks; greedy generation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from gradinoc.blocks import decoder_blocks, unwrapped
from gradinoc.chat import end_of_turn
from gradinoc.devices import choose_device, choose_dtype
from gradinoc.errors import ModelError, NumericalError
from gradinoc.fused import fuse
from gradinoc.gguf import no_progress_bars
from gradinoc.inert import ensure_inert
from gradinoc.memory import in_batches, is_out_of_memory
from gradinoc.quoting import printable, reason, shown
from gradinoc.sources import fingerprint, locate

__all__ = [
    "LanguageModel", "causal_leak", "decoder_blocks", "end_tokens", "ensure_causal",
    "fingerprint", "generate", "load_model", "separate_pad_token", "unwrapped",
]  # fmt: skip

# Weights below this are kept in float32 by dtype "auto".
TINY_BYTES = 40_000_000
# What rounding may change in an earlier hidden state, as a share of its norm, when only later tokens differ.
LEAK_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class LanguageModel:
    """A frozen model in eval mode with its tokenizer, whose pad token never ends a turn.

    Attributes:
        name: what it was loaded by.
        fingerprint: identity of its weights, configuration and tokenizer; see `fingerprint`.
        notes: what was decided or worked around while loading, for the report.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    fingerprint: str
    notes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are held in."""
        return next(self.model.parameters()).dtype


def load_model(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto", kernels: str = "fused"
) -> LanguageModel:
    """The model called `name`: a bundled name, a folder, a GGUF file, or a hub id (pinned by `revision`).

    `device` "auto" is cuda, else mps, else cpu. `dtype` "auto" is bfloat16 where device or processor have
    it, and float32 elsewhere or for weights of less than 40 MB. `kernels` "plain" leaves the model's own modules alone;
    see `gradinoc.fused`. Code in a repository is never run.

    Raises:
        ModelError: no such model, hub out of reach, no safetensors, weights that are missing or not finite, or later
            tokens change earlier states.
        DeviceError: no such device or dtype.
        ValueError: other kernels than these two.
    """
    if kernels not in ("fused", "plain"):
        raise ValueError(f"kernels {kernels!r}: expected fused or plain")
    folder, identity = locate(name, revision)
    ensure_inert(folder)
    place = choose_device(device)
    tiny = sum(file.stat().st_size for file in folder.glob("*.safetensors")) < TINY_BYTES
    precision = choose_dtype(dtype, place, tiny)
    try:
        with no_progress_bars(), _in_own_words():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            # The dtype is given here: a cast afterwards would also round the buffers of the rotary embedding.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=precision, trust_remote_code=False, use_safetensors=True,
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # a damaged file makes the libraries stumble in many ways
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"Cannot load {shown(name)} from {printable(folder)} ({reason(error)}); fetch it again or give "
            "another model"
        ) from error
    model: PreTrainedModel = loaded[0]
    unused = ensure_whole(model, loaded[1], printable(folder))
    nn.Module.to(model, place)
    notes = [f"{model.config.model_type} on {place.type} in {str(precision).removeprefix('torch.')}", *unused]
    notes += separate_pad_token(model, tokenizer)
    model.eval().requires_grad_(False)
    notes += ensure_causal(model)
    notes += fuse(model) if kernels == "fused" else ["plain modules, as asked"]
    return LanguageModel(model, tokenizer, name, identity, tuple(notes))


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
    """Keep transformers from reporting on weights by the line: `ensure_whole` says what there is to be said."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def ensure_causal(model: PreTrainedModel) -> list[str]:
    """Notes (none, or that eager attention is used) on a model where no later token changes an earlier state.

    Half-precision causal attention without padding is known to leak on Apple's MPS in some versions of torch.

    Raises:
        ModelError: it leaks with eager attention too.
    """
    leak = causal_leak(model)
    tolerance = LEAK_TOLERANCE[model.dtype]
    if leak <= tolerance:
        return []
    used = model.config._attn_implementation
    model.set_attn_implementation("eager")
    remaining = causal_leak(model)
    if not remaining <= tolerance:
        raise ModelError(
            f"{type(model).__name__} is not causal: later tokens change earlier hidden states by "
            f"{remaining:.2g} of their norm (tolerance {tolerance:g}), with eager attention too; "
            "try another dtype or device"
        )
    return [f"{used} attention leaks from later tokens ({leak:.2g} of a hidden state's norm); eager is used"]


@torch.no_grad()
def causal_leak(model: PreTrainedModel) -> float:
    """Largest change of a hidden state, as a share of its norm, when later tokens change; nothing is padded.

    0 in exact arithmetic; NaN if a hidden state is not finite.
    """
    vocabulary, half = model.config.get_text_config().vocab_size, 8
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (2, 2 * half), generator=generator).to(model.device)
    changed = tokens.clone()
    changed[:, half:] = (changed[:, half:] + 1) % vocabulary
    flags: dict[str, Any] = {"output_hidden_states": True, "use_cache": False}
    before, after = (
        torch.stack(model(ids, attention_mask=torch.ones_like(ids), **flags).hidden_states)[:, :, :half].float()
        for ids in (tokens, changed)
    )
    return float(((before - after).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-12)).max())


def generate(
    lm_model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Greedy continuations of the token ids in `prompts`, as text without special tokens, in their order.

    A continuation stops before its first end-of-turn or end-of-text token, or after `max_new_tokens`. Prompts
    of similar length share a batch; the model's own settings (temperature, repetition penalty) have no say.

    Raises:
        ValueError: a prompt is empty.
    """
    return generate_copies(lm_model, tokenizer, prompts, max_new_tokens, batch_size, 1)[0]


def generate_copies(
    lm_model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
    copies: int,
) -> list[list[str]]:
    """As `generate`, with every batch of prompts put `copies` times, once for each adapter of a stack.

    See `gradinoc.fused.stacked_adapters`. One list of continuations a copy. A batch that memory does not suffice for is
    halved.

    Raises:
        ValueError: a prompt is empty.
        NumericalError: a logit is not a number; the message names the prompts.
        OutOfMemoryError: memory does not suffice for a single prompt.
    """
    empty = [index for index, prompt in enumerate(prompts) if not prompt]
    if empty:
        raise ValueError(f"Prompts {empty} hold no token; a continuation needs at least one")
    model: Any = unwrapped(lm_model)
    ends = end_tokens(model, tokenizer)
    # Padding is masked and cut off: where there is no pad token, any other serves.
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=pad
    )
    responses = [[""] * len(prompts) for _ in range(copies)]
    # Longest first: a lack of memory shows at once.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))

    def respond(rows: Sequence[int]) -> None:
        ids, mask = (each.repeat(copies, 1) for each in _pad_left([prompts[row] for row in rows], pad))
        device, sound = next(model.parameters()).device, _SoundLogits()
        output = model.generate(
            ids.to(device), attention_mask=mask.to(device), generation_config=settings,
            logits_processor=LogitsProcessorList([sound]),
        )  # fmt: skip
        sound.check(rows)
        for place, tokens in enumerate(output[:, ids.shape[1] :].tolist()):
            stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
            copy, row = divmod(place, len(rows))
            responses[copy][rows[row]] = str(tokenizer.decode(tokens[:stop], skip_special_tokens=True))

    with _own_settings_aside(model):
        in_batches(order, batch_size, respond)
    return responses


class _SoundLogits(LogitsProcessor):
    """Notes which rows have had logits that are no numbers: the largest of them would be taken for a token."""

    def __init__(self) -> None:
        self._sound: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` as they are."""
        del input_ids
        sound = scores.amax(-1).isfinite()
        self._sound = sound if self._sound is None else self._sound & sound
        return scores

    def check(self, rows: Sequence[int]) -> None:
        """Stop if any of the prompts `rows`, put once or several times, was answered from such logits."""
        unsound = [] if self._sound is None else (~self._sound).nonzero().flatten().tolist()
        if unsound:
            raise NumericalError(
                f"Logits are not finite in responses to prompts {sorted({rows[row % len(rows)] for row in unsound})}: "
                "the model or an adapter is broken, or try model.dtype=float32"
            )


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that end a response: end of turn, end of text, those the model's settings name."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    if tokenizer.chat_template is not None:
        ends.add(end_of_turn(tokenizer))
    return ends - {None}


def separate_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Notes (none, or what was done) on a tokenizer that pads with a token which ends no turn.

    An unused special token of the vocabulary serves if there is one; otherwise a token is added, and the
    embedding grows by a row only where it has no spare one.
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
    tokenizer.add_special_tokens({"pad_token": "<|gradinoc_pad|>"})
    embedding: Any = model.get_input_embeddings()
    if len(tokenizer) > embedding.num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        return ["padding with a token added to the vocabulary; the embedding grew by its row"]
    return ["padding with a token added to the vocabulary in a spare row of the embedding"]


@contextmanager
def _own_settings_aside(model: Any) -> Iterator[None]:
    """Eval mode and plain settings: transformers fills what a call leaves open from the model's own."""
    own, training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(training)


def _pad_left(prompts: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[batch, seq]`, with every prompt at the right edge."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
