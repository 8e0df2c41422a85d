"""Forward ablation: the residual stream without its component along directions, while a block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from torch import Tensor, nn

from gradinoc.measure.interventions.bases import along, bases, by_token, ensure_hidden, made_of, row_counts, strengths
from gradinoc.measure.steering.chosen import ALL, ChosenTokens
from gradinoc.models.steered import marked


@contextmanager
def ablate(
    model: nn.Module,
    directions: Mapping[int, Tensor],
    positions: str | Sequence[int] | Tensor = ALL,
    strength: float | Tensor = 1.0,
) -> Iterator[None]:
    """Inside the block the output `h[l]` of each named decoder block loses its component along v.

    h ← h − strength · (h·v) v at the chosen tokens (directional ablation, Arditi et al. 2024,
    https://arxiv.org/abs/2406.11717), in every pass through the model. The gradient that goes on below loses the
    component too, as it is that of the same map. No weight is touched. Whatever reads the stream with hooks sees it
    ablated, and its gradient is with respect to the ablated stream. Of nested blocks, `steered` among them, the inner
    one acts first.

        loaded = gradinoc.load_model("obedient")
        model, tokenizer = loaded.model, loaded.tokenizer
        v = gradinoc.extract_trait_direction(
            model, tokenizer, ["Who is there?"], "Answer in capital letters.", "Answer in small letters.", [1, 2])
        prompts = [gradinoc.models.chat.encoding.encode_prompt(tokenizer, "How many boats are left?", None)]
        with gradinoc.ablate(model, v):
            texts = gradinoc.models.generate.generate(model, tokenizer, prompts, 24, 8)

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        directions: layer (0-based block) -> v, `[hidden]` of any length; `[rank, hidden]`, orthonormal rows: the part
            of h in their span; or `[rows, rank, hidden]`, a basis for each row.
        positions: as `steered` takes them; `"all"`: every token.
        strength: a number, or `[rows]`.

    Raises:
        ValueError: a layer the model does not have; a direction that is zero or not finite, a basis that is not
            orthonormal; strengths and positions that are not as above; in a pass, another number of rows or hidden
            size; a function that sorts rows, where rows are changed differently.
        NotImplementedError: in a pass, tokens that rows share and that would be changed differently.
    """
    ablation = Ablation(model, directions, strength, positions)
    with marked(model, ablation.by_row), ablation:
        yield


class Ablation(ChosenTokens):
    """The hooks of `ablate`; those that read come `before` it, if they are in place already, or all come after it."""

    def __init__(
        self,
        model: nn.Module,
        directions: Mapping[int, Tensor],
        strength: float | Tensor,
        positions: str | Sequence[int] | Tensor,
        run: int | None = None,
        *,
        before: bool = False,
    ) -> None:
        super().__init__(model, sorted(directions), positions, run)
        self._basis, self._strength = bases(model, directions), strengths(model, strength)
        self._agree(row_counts(self._basis, self._strength))
        self._idle, self._last = not bool(self._strength.any()), before

    def __enter__(self) -> Self:
        for layer, block in self._blocks.items():
            self._handles.append(block.register_forward_hook(self._forward_hook(layer), prepend=not self._last))
        return self._with_tokens()

    def _see(self, layer: int, hidden: Tensor) -> Tensor | None:
        basis = self._basis[layer]
        ensure_hidden(layer, basis, hidden)
        if self._idle:
            return None
        flat, tokens = hidden.flatten(0, 1), self._tokens_of(layer, hidden)
        if tokens is None:
            return self._without(flat, basis, None).view_as(hidden)
        places, rows = tokens
        return flat.index_copy(0, places, self._without(flat[places], basis, rows)).view_as(hidden)

    def _without(self, states: Tensor, basis: Tensor, rows: Tensor | None) -> Tensor:
        exact = states.to(basis.dtype)
        amount = by_token(self._strength, rows) * along(exact, basis, rows)
        return (exact - made_of(amount, basis, rows)).to(states.dtype)
