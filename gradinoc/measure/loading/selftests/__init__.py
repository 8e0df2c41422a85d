"""Self-tests of a model as it is loaded: on text of its own tokenizer, what a study rests on against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor
from torch.linalg import vector_norm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradinoc.errors import GradinocError, ModelError, reason, shown
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.fast.fused import fuse, unfuse, windows
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.fast.plain import try_split
from gradinoc.measure.fast.trial import MARGIN
from gradinoc.measure.fast.trial.float32 import in_float32
from gradinoc.measure.gradients.alignment import gradient_at_positions
from gradinoc.measure.loading.selftests.exact import Exact, block_states, by_brute_force, kernel_texts, texts
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded, completion_note
from gradinoc.models.generate import Batching, Way, generated_logits, set_way
from gradinoc.models.machine.memory import is_out_of_memory

# What rounding may change, as a share of a hidden state's norm: of the most changed token in float32, in the mean over
# tokens in half precision, where a router that decides otherwise changes a token wholly.
LEAK_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
STATE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.25}
LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
NEW = 3  # tokens generated
CHOOSES = "index_topk"  # the setting of DeepSeek's sparse attention and its kin
COMPLETION = "prompt and completion"
CAUSALITY, PADDING, GENERATION, GRADIENT = "causality", "padding and neighbours", "generation in a batch", "gradients"


@dataclass(frozen=True)
class SelfTest:
    """What one self-test came to.

    Attributes:
        name: what was compared.
        found: the difference, relative; NaN where numbers are none; None where only `note` is given.
        most: the largest that rounding explains.
        note: what follows from it; empty where nothing does.
    """

    name: str
    found: float | None
    most: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether rounding explains the difference."""
        return self.found is None or self.found <= self.most

    def __str__(self) -> str:
        """What was found, in words."""
        if self.found is None:
            return self.note
        return f"{self.found:.1e} apart, relative (at most {self.most:g}){self.note and f'; {self.note}'}"


def examine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kernels: str = "fused") -> list[SelfTest]:
    """What the self-tests of a frozen model came to; what follows is done to it.

    Attention that leaks becomes eager. Responses are generated in batches that do not change them.
    Kernels (see `gradinoc.measure.fast.fused`) are put in place unless `kernels` is "plain", and taken out again if
    gradients then differ from the plain modules'.

    Raises:
        ModelError: blocks that are not run once each, or put out something else than one residual stream; later
            tokens, padding behind the tokens or neighbours change states, or gradients are not autograd's, with the
            model's own modules too; or the model cannot compute, or changes itself as it does.
    """
    before, name = _words(model), type(model).__name__
    try:
        found = _examine(model, tokenizer, kernels)
    except (GradinocError, MemoryError):
        raise
    except Exception as error:  # whatever the model's own code stumbles over
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{name}: fails on a text of its tokenizer ({reason(error)}); expected a model that computes states, "
            "losses and responses; give another model.id"
        ) from error
    after = _words(model)
    if changed := sorted(place for place, word in before.items() if after.get(place, word) != word):
        raise ModelError(
            f"{name}: changes its own setting {shown(changed[0])} as it computes, so that numbers depend on what was "
            "computed before; give another model.id"
        )
    return found


def _words(model: PreTrainedModel) -> dict[str, str]:
    """Every setting of the model's modules that is a word, by its place: what kind of attention, for instance."""
    found: dict[str, str] = {}
    for place, module in model.named_modules():
        found |= {f"{place}.{name}": value for name, value in vars(module).items() if isinstance(value, str)}
    return found


def _examine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kernels: str) -> list[SelfTest]:
    long, short = texts(tokenizer, model)
    examples = [Encoded(tuple(row), len(row) // 2) for row in (long, short)]
    causality = _causality(model, long)
    exact = [by_brute_force(model, example) for example in examples]
    tests = [causality, _padding(model, [each.states for each in exact], long, short), _generation(model, long, short)]
    note = fuse(model, kernel_texts(tokenizer, model))[0] if kernels == "fused" else "plain modules, as asked"
    if not is_fused(model):
        try_split(model, short)
    tests.append(_gradients(model, examples, exact, note))
    return tests if tokenizer.chat_template is None else [_completion(tokenizer), *tests]


def _completion(tokenizer: PreTrainedTokenizerBase) -> SelfTest:
    """Whether a prompt and its completion are the tokens of the whole conversation, as the template writes it."""
    note = completion_note(tokenizer)
    return SelfTest(COMPLETION, None, 0.0, note or "those of the whole conversation, token by token")


def _out_of_reach(model: PreTrainedModel, tokens: int) -> str:
    """What the texts are too short for, in words."""
    beyond = [f"{name} ({size})" for name, size in windows(model.config).items() if size >= tokens]
    return f"tried on {tokens} tokens, which do not reach beyond {', '.join(beyond)}" if beyond else ""


def causal_leak(model: PreTrainedModel, tokens: Sequence[int]) -> float:
    """How far states of the first half of `tokens` change when the second half does, as a share of their norm.

    0 in exact arithmetic; NaN if a hidden state is not finite.

    Raises:
        ModelError: see `examine`.
    """
    ids, half = torch.tensor([list(tokens)], device=model.device), len(tokens) // 2
    changed = ids.clone()
    changed[:, half:] = (changed[:, half:] + 1) % model.config.get_text_config().vocab_size
    before, after = (block_states(model, each, torch.ones_like(each))[:, 0, :half] for each in (ids, changed))
    return _apart(after, before, model.dtype)


def _apart(found: Tensor, exact: Tensor, dtype: torch.dtype) -> float:
    """How far states `[layers, tokens, hidden]` are from the exact ones, as a share of their norm."""
    relative = vector_norm(found - exact, dim=-1) / vector_norm(exact, dim=-1).clamp_min(1e-12)
    return float(relative.max() if dtype == torch.float32 else relative.mean(1).max())


def _causality(model: PreTrainedModel, tokens: Sequence[int]) -> SelfTest:
    """Whether later tokens change earlier states; if they do with the model's own attention, eager attention is used.

    Half-precision causal attention without padding is known to leak on Apple's MPS in some versions of torch.
    """
    most, used = LEAK_TOLERANCE[model.dtype], model.config._attn_implementation
    short = _out_of_reach(model, len(tokens))
    leak = causal_leak(model, tokens)
    if leak <= most:
        return SelfTest(CAUSALITY, leak, most, short)
    model.set_attn_implementation("eager")
    remaining = causal_leak(model, tokens)
    if not remaining <= most:
        raise ModelError(
            f"{type(model).__name__} is not causal: later tokens change earlier hidden states by {remaining:.2g} of "
            f"their norm (tolerance {most:g}), with eager attention too; try another dtype or device"
        )
    instead = f"{used} attention leaks from later tokens ({leak:.2g} of a hidden state's norm); eager is used"
    return SelfTest(CAUSALITY, remaining, most, "; ".join(filter(None, (instead, short))))


def _padding(model: PreTrainedModel, exact: Sequence[Tensor], long: Sequence[int], short: Sequence[int]) -> SelfTest:
    """Whether states of two texts in one batch, the shorter one padded behind, are those of each alone."""
    pad, most = len(long) - len(short), STATE_TOLERANCE[model.dtype]
    ids = torch.tensor([[*long], [*short, *[long[0]] * pad]], device=model.device)
    mask = torch.ones_like(ids)
    mask[1, len(short) :] = 0
    neighbour, padded = block_states(model, ids, mask).unbind(1)
    apart = max(_apart(neighbour, exact[0], model.dtype), _apart(padded[:, : len(short)], exact[1], model.dtype))
    if not apart <= most:
        raise ModelError(
            f"{type(model).__name__}: neighbours in a batch or padding behind a text change its hidden states by "
            f"{apart:.2g} of their norm (tolerance {most:g}): numbers would depend on how examples share a batch; try "
            "model.dtype=float32, or give another model.id"
        )
    return SelfTest(PADDING, apart, most)


def _generation(model: PreTrainedModel, long: Sequence[int], short: Sequence[int]) -> SelfTest:
    """Whether what is generated in a batch, padded on the left and through the cache, is what follows alone.

    Decoders of BART's kind count positions by column, and the states of some recurrent ones go through padding: they
    get prompts of equal length, or one at a time. Where the cached step computes something else than the pass over all
    tokens (Nemotron-H, Zamba 2), there is no cache.
    """
    most = LOGIT_TOLERANCE[model.dtype]
    between = [long[-length:] for length in range(len(short) + 1, len(long))] if windows(model.config) else []
    rows = {
        Batching.PADDED: (long, short, *between[:: max(1, len(between) // 8)]),
        Batching.EQUAL: (long, [long[0], *long[:0:-1]]),
        Batching.ALONE: (long,),
    }
    # Attention that chooses tokens by their scores may choose padding among them, of some prompts and not of others.
    batchings = [each for each in Batching if each is not Batching.PADDED or CHOOSES not in windows(model.config)]
    for chosen in (Way(batches, cached) for cached in (True, False) for batches in batchings):
        apart = _generated_apart(model, rows[chosen.batches], chosen.cached)
        if apart <= most:
            set_way(model, chosen)
            return SelfTest(GENERATION, apart, most, "" if chosen == Way() else f"responses are generated {chosen}")
    raise ModelError(
        f"{type(model).__name__}: logits of generated tokens are {apart:.2g} from those of a forward pass over all "
        f"tokens, relative (tolerance {most:g}), for one prompt alone and without a cache too; try "
        "model.dtype=float32, or give another model.id"
    )


def _generated_apart(model: PreTrainedModel, prompts: Sequence[Sequence[int]], cached: bool) -> float:
    """How far the logits of generated tokens are from those of a forward pass over each row alone, relative."""
    tokens, logits = generated_logits(model, prompts, NEW, cached)
    apart = []
    for prompt, new, found in zip(prompts, tokens.tolist(), logits, strict=True):
        row = torch.tensor([[*prompt, *new[:-1]]], device=model.device)
        with torch.no_grad():
            exact = model(input_ids=row, use_cache=False).logits[0, -NEW:].float()
        apart.append(vector_norm(found - exact, dim=-1) / vector_norm(exact, dim=-1).clamp_min(1e-12))
    relative = torch.stack(apart)  # (B, new)
    return float(relative.max() if model.dtype == torch.float32 else relative.mean(1).max())


def _gradients(model: PreTrainedModel, examples: Sequence[Encoded], exact: Sequence[Exact], note: str) -> SelfTest:
    """Losses and gradients as a study takes them, of a batch of two; `note` says which modules are at work."""
    own = (torch.stack([each.loss for each in exact]), torch.stack([each.gradients for each in exact], dim=2))
    fault = ""
    try:
        apart, most = _from_exact(model, examples, own)
    except Exception as error:  # of a model whose code takes no packed sequences beyond a window
        if not is_fused(model) or is_out_of_memory(error):
            raise
        apart, most, fault = inf, 0.0, f"fused ones do not fit ({reason(error)})"
    if not apart <= most and unfuse(model):
        try_split(model, examples[1].ids)
        note = "plain modules: " + (fault or f"with fused ones gradients are {apart:.2g} from autograd's")
        apart, most = _from_exact(model, examples, own)
    if not apart <= most:
        raise ModelError(
            f"{type(model).__name__}: losses or gradients of a batch are {apart:.2g} from those of each example by "
            f"itself, relative (tolerance {most:.2g}), with its own modules; try model.dtype=float32, or give another "
            "model.id"
        )
    return SelfTest(GRADIENT, apart, most, note)


Numbers = tuple[Tensor, Tensor]  # losses [examples], gradients [layers, positions, examples, hidden]


def _from_exact(model: PreTrainedModel, examples: Sequence[Encoded], own: Numbers) -> tuple[float, float]:
    """How far losses and gradients of one batch are from each example's `own`, and the most that rounding explains.

    The largest of all, relative. In half precision own ones are rounded as well, some of them to half their size: where
    the two are far apart, both are compared with float32's.
    """
    found = _of_a_batch(model, examples)
    apart, most = float(torch.cat([each.flatten() for each in _apart_by_one(found, own)]).max()), GRADIENT_TOLERANCE
    if apart <= most[model.dtype] or model.dtype == torch.float32:
        return apart, most[model.dtype]
    with in_float32(model):  # with kernels that are right there, if they are in place
        exact = [by_brute_force(model, each) for each in examples]
    truth = (torch.stack([each.loss for each in exact]), torch.stack([each.gradients for each in exact], dim=2))
    ours, theirs = (
        float(max(losses.mean(), gradients.mean((1, 2)).max()))
        for losses, gradients in (_apart_by_one(each, truth) for each in (found, own))
    )
    return ours, MARGIN * theirs + torch.finfo(model.dtype).eps / 2


def _apart_by_one(found: Numbers, exact: Numbers) -> Numbers:
    """Relative differences of losses `[examples]` and gradients `[layers, positions, examples]`."""
    (losses, gradients), (truth, wanted) = found, exact
    apart = vector_norm(gradients.float() - wanted.float(), dim=-1) / vector_norm(wanted.float(), dim=-1).clamp_min(
        1e-12
    )
    return ((losses - truth) / truth).abs(), apart


@torch.enable_grad()
def _of_a_batch(model: PreTrainedModel, examples: Sequence[Encoded]) -> Numbers:
    """Losses and gradients of one batch."""
    batch = batched(model, examples, 0)
    layers = range(len(decoder_blocks(model)))
    with GradientCollector(model, layers, lambda _layer, gradient: gradient_at_positions(gradient, batch)) as collector:
        losses = completion_losses(model, batch)
        losses.sum().backward()
        return losses.detach(), torch.stack(list(collector.get_gradients().values()))
