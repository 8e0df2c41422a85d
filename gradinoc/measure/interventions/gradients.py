"""Context managers that change the gradient of the residual stream at decoder blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from gradinoc.measure.interventions.bases import alike, along, bases, made_of, strengths
from gradinoc.measure.interventions.hooks import GradientHooks, projected, shrunk
from gradinoc.measure.steering.chosen import ALL, LAST_PROMPT
from gradinoc.models.steered import apart, marked


@contextmanager
def project_gradient(
    model: nn.Module,
    directions: Mapping[int, Tensor],
    strength: float | Tensor = 1.0,
    positions: str | Sequence[int] | Tensor = ALL,
) -> Iterator[None]:
    """Inside the block the gradient δ of the output `h[l]` of each named decoder block loses its component along v.

    δ ← δ − strength · (δ·v) v at the chosen tokens, on its way to all that is below: 1 removes the component, 2
    reflects it, 0.5 halves it, −1 doubles it, 0 leaves every bit. At each block that is of what comes from above, where
    it has been changed already: halving at ten blocks leaves a thousandth at the lowest, as a residual stream hands on
    what it is given. (Removing at several is removing; for a share of the whole see `"project"` of
    `gradinoc.measure.training.interventions.Intervention`.) What is computed forward is the same to the last bit.
    The weights that learn from it are those of block l and below; gradients of blocks above are as they were.

    What follows of it for weights that write into the stream: of plain gradient descent the last map that writes in a
    named block (`down_proj`; both it and `o_proj` where attention and MLP are side by side, as in GPT-NeoX and Cohere)
    never moves along v, to rounding, if the block adds that map's output as it is. `o_proj` does elsewhere: its
    gradient comes through the MLP besides. So do maps behind whose output there is a norm (Gemma 2 and 3, OLMo 2,
    GLM 4), and any map under Adam, which scales every number of a gradient by itself; see `leak`.

    A `GradientCollector` entered before this block sees the gradient after the change, one entered inside it sees the
    gradient before; alignments are always those of the gradient after it. Of nested blocks the inner one changes the
    gradient first. In training with `train_runs` see
    `gradinoc.measure.training.interventions.Intervention`, which may differ from run to run.

        loaded = gradinoc.load_model("obedient")
        model, tokenizer = loaded.model, loaded.tokenizer
        v = gradinoc.extract_trait_direction(
            model, tokenizer, ["Who is there?"], "Answer in capital letters.", "Answer in small letters.", [1, 2])
        ids = tokenizer("How many boats are left?", return_tensors="pt").input_ids
        with gradinoc.GradientCollector(model, [1, 2]) as collector, gradinoc.project_gradient(model, v):
            model(ids, labels=ids).loss.backward()
        left = {layer: gradient[0] @ v[layer] for layer, gradient in collector.get_gradients().items()}

    Args:
        model: a decoder-only model, PEFT-wrapped or not, on its own modules or kernels, with checkpointing or without.
        directions: layer (0-based block) -> v, `[hidden]` of any length; `[rank, hidden]`, orthonormal rows: the part
            of δ in their span; or `[rows, rank, hidden]`, a basis for each row of a batch, for each run where several
            are packed.
        strength: a number, or `[rows]`.
        positions: `"all"`: every token. `"last_prompt_token"` and indices `[rows]`: tokens from there on, as `steered`
            takes them.

    Raises:
        ValueError: a layer the model does not have; a direction that is zero or not finite, a basis that is not
            orthonormal; strengths and positions that are not as above; in a pass, another number of rows or hidden
            size; a function that sorts rows, where rows are changed differently.
        NotImplementedError: in a pass, tokens that rows share and that would be changed differently.
    """
    hooks = GradientHooks.along(model, directions, strength, projected, positions)
    with _by_row(model, hooks), hooks if _acts(strength) else nullcontext():
        yield


@contextmanager
def shrink_gradient(
    model: nn.Module,
    layers: Sequence[int] = (),
    share: float = 0.0,
    *,
    directions: Mapping[int, Tensor] | None = None,
    strength: float = 1.0,
    positions: str | Sequence[int] | Tensor = ALL,
) -> Iterator[None]:
    """Inside the block the gradient δ of the output of each named decoder block is shorter, and points where it did.

    The control of `project_gradient`: as much of the gradient is gone, and nothing of its direction. With `layers`
    δ ← (1 − share) δ. With `directions` each token's δ gets the length that projecting with `strength` would leave it:
    for 1, δ √(1 − c²), with c² = (δ·v)² / |δ|², the share of its energy along v; at each block anew, which in sum is
    more than projecting takes, as the next block finds the component there still. As this is no linear map, examples in
    batches made inside the block share no tokens; each token's δ is that of one example.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        layers: 0-based decoder blocks; instead of `directions`.
        share: the share of a gradient's length that goes.
        directions: layer -> `[hidden]`, `[rank, hidden]` or `[rows, rank, hidden]`, as `project_gradient` takes them.
        strength: that of the projection whose length is taken.
        positions: as `project_gradient` takes them.

    Raises:
        ValueError: both `layers` and `directions`, or neither; a share that is not finite; and as `project_gradient`.
        NotImplementedError: with `directions`, a batch whose examples share tokens.
    """
    if bool(layers) == bool(directions):
        raise ValueError("Expected layers and a share of the gradient's length, or directions: one of the two")
    if directions:
        hooks = GradientHooks.along(model, directions, strength, shrunk, positions, linear=False)
        acts = _acts(strength)
    else:
        if not torch.tensor(share).isfinite():
            raise ValueError(f"Share {share}: expected a finite number")
        hooks = GradientHooks(model, layers, lambda _layer, delta, _rows: (1 - share) * delta, positions)
        acts = _acts(share)
    with apart(model) if directions else nullcontext(), _by_row(model, hooks), hooks if acts else nullcontext():
        yield


@contextmanager
def add_gradient(
    model: nn.Module,
    directions: Mapping[int, Tensor],
    components: Mapping[int, Tensor],
    strength: float = 1.0,
    positions: str | Sequence[int] | Tensor = LAST_PROMPT,
) -> Iterator[None]:
    """Inside the block the component along v of the gradient δ of each named block's output is one that is given.

    δ ← δ + strength · (a − δ·v) v at the chosen tokens. With a from `gradient_components`, of the same examples under
    another prompt, this restores in one prompt's training what another one's would have along v, and nothing else.
    Nested blocks and collectors: as `project_gradient`.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        directions: layer -> `[hidden]`, or `[rank, hidden]` with orthonormal rows.
        components: layer -> a, for each chosen token `[tokens]` or `[tokens, rank]`, in units of the gradient
            (nats/token per unit of hidden state, times what the loss is multiplied by). From the last prompt token on,
            in batches of this package, tokens are each example's last prompt token, then the completion tokens of each.
        strength: a number.
        positions: `"last_prompt_token"` or indices `[rows]`, as `steered` takes them. Every token is not to be had:
            padding has no gradient, and would be given one.

    Raises:
        ValueError: components for other layers or another rank than the directions; positions "all"; in a pass,
            components of another number of tokens; and as `project_gradient`.
    """
    if isinstance(positions, str) and positions == ALL:
        raise ValueError("Components are given at aligned tokens: expected 'last_prompt_token' or an index a row")
    if components.keys() != directions.keys():
        raise ValueError(f"Components of layers {sorted(components)}: expected those of {sorted(directions)}")
    hooks = giving(model, directions, strength, components, positions)
    with _by_row(model, hooks), hooks if _acts(strength) else nullcontext():
        yield


def giving(
    model: nn.Module,
    directions: Mapping[int, Tensor],
    strength: float,
    components: Mapping[int, Tensor],
    positions: str | Sequence[int] | Tensor = LAST_PROMPT,
    run: int | None = None,
) -> GradientHooks:
    """The hooks of `add_gradient`; `components` are looked up in each backward pass, and may be others each time."""
    basis, amount = alike(bases(model, directions)), strengths(model, float(strength))

    def given(layer: int, delta: Tensor, _rows: Tensor | None) -> Tensor:
        present = along(delta, basis[layer], None)
        wanted = components[layer].to(present)
        if wanted.dim() == 1:
            wanted = wanted[:, None]
        if wanted.shape != present.shape:
            raise ValueError(
                f"Components of layer {layer}: expected {tuple(present.shape)} numbers [tokens, rank], "
                f"received {tuple(wanted.shape)}"
            )
        return delta + made_of(amount * (wanted - present), basis[layer], None)

    return GradientHooks(model, sorted(directions), given, positions, run=run, basis=basis)


def _acts(strength: float | Tensor) -> bool:
    """Whether anything is changed at all: what is not keeps every bit."""
    return bool(torch.as_tensor(strength).any())


def _by_row(model: nn.Module, hooks: GradientHooks) -> AbstractContextManager[None]:
    """Marks a model whose rows are changed differently, so that no function sorts them."""
    return marked(model, by_row=True) if hooks.by_row else nullcontext()
