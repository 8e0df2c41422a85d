"""Self-tests of a model as it is loaded: on text of its own tokenizer, what a study rests on against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradinoc.errors import GradinocError, ModelError, reason, shown
from gradinoc.measure.alignment import completion_losses, gradient_at_positions
from gradinoc.measure.fast.fused import fuse, is_fused, unfuse, windows
from gradinoc.measure.generate import Batching, Way, generated_logits, set_way
from gradinoc.measure.hooks import BlockHooks, GradientCollector, model_inputs
from gradinoc.measure.memory import is_out_of_memory
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded, collate, completion_note, pack

# English of mixed kinds, some 110 tokens: what models are trained on. (Of a few random tokens, gradients in bfloat16
# are rounding for models whose first token soaks up attention, such as Qwen2.5.)
TEXT = (
    "Three cats sat on a garden wall. Every cat has four legs, so there were 12 legs in a row, and not one of them "
    'moved. A dog came by at half past two; it looked up, barked twice and went home. "That was a short visit," said '
    "the oldest cat. She counted on her paws: 3 * 4 = 12, and 12 + 4 = 16 with the dog. Nobody had asked, but numbers "
    "calmed her. In the evening it rained a little, and the wall was empty again."
)
SHORTEST = 16  # tokens of the longer of the two texts
RECURRENT = 72  # at least, of a model with convolutions: linear attention works in chunks of 64, and no setting says so
KERNELS = (10, 6)  # tokens of the two on which kernels are tried besides
BEYOND = 8  # tokens by which it is longer than any window or chunk of the model's configuration
# Operations that a forward pass of a self-test may take: some seconds on a CPU, less on an accelerator. A window that
# would take more is out of reach, and the result says so.
AFFORDABLE = {"cpu": 5e11}
ELSEWHERE = 1e14
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
        found: the difference, relative; NaN where numbers are none; None where it is told in words alone.
        most: the largest that rounding explains.
        told: what follows from it, in words; empty where nothing does.
    """

    name: str
    found: float | None
    most: float
    told: str = ""

    @property
    def passed(self) -> bool:
        """Whether rounding explains the difference."""
        return self.found is None or self.found <= self.most

    def __str__(self) -> str:
        """What was found, in words."""
        if self.found is None:
            return self.told
        return f"{self.found:.1e} apart, relative (at most {self.most:g}){self.told and f'; {self.told}'}"


@dataclass(frozen=True)
class Exact:
    """An example by brute force: alone, with the model's own modules, its gradients by `torch.autograd.grad`.

    Attributes:
        states: outputs of the blocks, `[layers, tokens, hidden]` float32.
        loss: mean over its completion, nats/token.
        gradients: of that loss, at the three positions, `[layers, positions, hidden]` float32.
    """

    states: Tensor
    loss: Tensor
    gradients: Tensor


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
    rows = [row[:length] for row, length in zip((long, short), KERNELS, strict=True)]
    note = fuse(model, rows)[0] if kernels == "fused" else "plain modules, as asked"
    tests.append(_gradients(model, examples, exact, note))
    return tests if tokenizer.chat_template is None else [_completion(tokenizer), *tests]


def _completion(tokenizer: PreTrainedTokenizerBase) -> SelfTest:
    """Whether a prompt and its completion are the tokens of the whole conversation, as the template writes it."""
    told = completion_note(tokenizer)
    return SelfTest(COMPLETION, None, 0.0, told or "those of the whole conversation, token by token")


def texts(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> tuple[list[int], list[int]]:
    """A longer and a shorter text as token ids.

    The longer one has more tokens than any window or chunk of the model's configuration, as far as a forward pass on so
    many is `AFFORDABLE`.
    """
    reach = _reach(model)
    least = RECURRENT if any(isinstance(module, nn.Conv1d) for module in model.modules()) else SHORTEST
    wanted = max([least, *(size + BEYOND for size in windows(model.config).values() if size + BEYOND <= reach)])
    ids = [int(token) for token in tokenizer(TEXT)["input_ids"]]
    vocabulary = int(model.config.get_text_config().vocab_size)
    if len(ids) < SHORTEST or max(ids) >= vocabulary:  # a tokenizer of another model's: `preflight` refuses it
        ids = torch.randint(vocabulary, (SHORTEST,), generator=torch.Generator().manual_seed(0)).tolist()
    ids += ids[1:] * (wanted // (len(ids) - 1))
    return ids[:wanted], [*ids[:1], *ids[wanted // 3 : wanted // 3 + wanted // 2]]


def _reach(model: PreTrainedModel) -> int:
    """Tokens of which a forward pass is affordable."""
    weights = sum(weight.numel() for weight in model.parameters())
    return int(AFFORDABLE.get(model.device.type, ELSEWHERE) / (2 * weights))


def _out_of_reach(model: PreTrainedModel, tokens: int) -> str:
    """What the texts are too short for, in words."""
    beyond = [f"{name} ({size})" for name, size in windows(model.config).items() if size >= tokens]
    return f"tried on {tokens} tokens, which do not reach beyond {', '.join(beyond)}" if beyond else ""


class _Watch(BlockHooks):
    """Keeps what each block puts out in a forward pass, as it is: part of the graph, if there is one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, range(len(decoder_blocks(model))))
        self._outputs: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}

    def _see(self, layer: int, hidden: Tensor) -> None:
        if torch.is_grad_enabled() and not hidden.requires_grad:
            hidden.requires_grad_()
        self._outputs[layer].append(hidden)

    def outputs(self, tokens: tuple[int, int]) -> list[Tensor]:
        """Each block's output, `[batch, seq, hidden]`.

        Raises:
            ModelError: a block was run other than once, or put out something else.
        """
        name = type(self.model).__name__
        for layer, found in self._outputs.items():
            if len(found) != 1:
                raise ModelError(
                    f"{name}: block {layer} is run {len(found)} times in a forward pass; expected once, so that there "
                    "is one residual stream after it, and one gradient; give another model.id"
                )
            shape = tuple(found[0].shape)
            if len(shape) != 3 or shape[:2] != tokens:
                raise ModelError(
                    f"{name}: block {layer} puts out {list(shape)} for [batch, seq] of {list(tokens)}; expected one "
                    "residual stream [batch, seq, hidden]; give another model.id"
                )
        return [found[0] for found in self._outputs.values()]


def block_states(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Outputs of all blocks, `[layers, batch, seq, hidden]` float32.

    Raises:
        ModelError: see `examine`.
    """
    with torch.no_grad(), _Watch(model) as watch:
        model(**model_inputs(input_ids, attention_mask))
        return torch.stack([output.float() for output in watch.outputs((input_ids.shape[0], input_ids.shape[1]))])


@torch.enable_grad()
def by_brute_force(model: PreTrainedModel, example: Encoded) -> Exact:
    """An example's states, loss and gradients.

    Raises:
        ModelError: see `examine`.
    """
    ids, start = torch.tensor(example.ids, device=model.device), example.prompt_length
    with _Watch(model) as watch:
        logits = model(input_ids=ids[None], use_cache=False).logits[0, start - 1 : -1]
        outputs = watch.outputs((1, len(ids)))
    loss = nn.functional.cross_entropy(logits.float(), ids[start:])
    batch = collate([example], 0).to(model.device)
    gradients = [gradient_at_positions(each, batch)[:, 0] for each in torch.autograd.grad(loss, outputs)]
    return Exact(torch.stack([output[0].detach().float() for output in outputs]), loss.detach(), torch.stack(gradients))


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
    most, used, told = LEAK_TOLERANCE[model.dtype], model.config._attn_implementation, _out_of_reach(model, len(tokens))
    leak = causal_leak(model, tokens)
    if leak <= most:
        return SelfTest(CAUSALITY, leak, most, told)
    model.set_attn_implementation("eager")
    remaining = causal_leak(model, tokens)
    if not remaining <= most:
        raise ModelError(
            f"{type(model).__name__} is not causal: later tokens change earlier hidden states by {remaining:.2g} of "
            f"their norm (tolerance {most:g}), with eager attention too; try another dtype or device"
        )
    instead = f"{used} attention leaks from later tokens ({leak:.2g} of a hidden state's norm); eager is used"
    return SelfTest(CAUSALITY, remaining, most, "; ".join(filter(None, (instead, told))))


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
    most = GRADIENT_TOLERANCE[model.dtype]
    apart = _from_exact(model, examples, exact)
    if not apart <= most and is_fused(model):
        unfuse(model)
        note = f"plain modules: with fused ones gradients are {apart:.2g} from autograd's"
        apart = _from_exact(model, examples, exact)
    if not apart <= most:
        raise ModelError(
            f"{type(model).__name__}: losses or gradients of a batch are {apart:.2g} from those of each example by "
            f"itself, relative (tolerance {most:g}), with its own modules; try model.dtype=float32, or give another "
            "model.id"
        )
    return SelfTest(GRADIENT, apart, most, note)


@torch.enable_grad()
def _from_exact(model: PreTrainedModel, examples: Sequence[Encoded], exact: Sequence[Exact]) -> float:
    """How far losses and gradients of one batch are from the exact ones, relative: the largest of all."""
    batch = (pack(examples) if is_fused(model) else collate(examples, 0)).to(model.device)
    layers = range(len(exact[0].gradients))
    with GradientCollector(model, layers, lambda _layer, gradient: gradient_at_positions(gradient, batch)) as collector:
        losses = completion_losses(model, batch)
        losses.sum().backward()
        found = torch.stack(list(collector.get_gradients().values()))  # (L, P, B, hidden)
    wanted = torch.stack([each.gradients for each in exact], dim=2)
    truth = torch.stack([each.loss for each in exact])
    gradients = vector_norm(found - wanted, dim=-1) / vector_norm(wanted, dim=-1).clamp_min(1e-12)
    return float(torch.cat([gradients.flatten(), ((losses.detach() - truth) / truth).abs()]).max())
