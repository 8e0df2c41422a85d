"""Context managers on the residual stream: read its activations, and the gradients of a loss with respect to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradinoc.measure.fast import Prompts, prompt_pass
from gradinoc.measure.passes.batches import logits_at, model_inputs, right_padded
from gradinoc.models.blocks import decoder_blocks, unwrapped
from gradinoc.models.machine.isolation import undisturbed

Position = str | int
_ALONE = "_gradinoc_alone"  # the one collector that reads, where others are not to


class BlockHooks(ABC):
    """Forward hooks on chosen decoder blocks, in place between `__enter__` and `__exit__`, whatever happens between."""

    _before_others = False  # before hooks that were put in earlier, and not after them

    def __init__(self, model: nn.Module, layer_indices: Sequence[int]) -> None:
        blocks = decoder_blocks(model)
        unknown = [layer for layer in layer_indices if layer not in range(len(blocks))]
        if unknown or not layer_indices:
            raise ValueError(
                f"Layers {list(layer_indices)}: expected one or more of 0..{len(blocks) - 1}, the blocks of this model"
            )
        self.model = model
        self.layers = list(layer_indices)
        self._blocks = {layer: blocks[layer] for layer in layer_indices}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for layer, block in self._blocks.items():
            self._handles.append(block.register_forward_hook(self._forward_hook(layer), prepend=self._before_others))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _forward_hook(self, layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_block: nn.Module, _inputs: Any, output: Any) -> Any:
            several = isinstance(output, tuple | list)
            changed = self._see(layer, output[0] if several else output)
            return type(output)((changed, *output[1:])) if several and changed is not None else changed

        return hook

    @abstractmethod
    def _see(self, layer: int, hidden: Tensor) -> Tensor | None:
        """Take note of block `layer`'s output, `[batch, seq, hidden]`; what is returned, if anything, replaces it."""


class ActivationCollector(BlockHooks):
    """Reads the residual stream `h[l]`, the output of decoder block `l`, at one token position.

    `h[l]` equals `hidden_states[l + 1]` of Hugging Face, except for the last block, where Hugging Face returns the
    state after the final norm, and except for a model that is steered: transformers collects its states with hooks of
    its own, and whether these come before or after those that steer depends on what was asked for first. `h[l]` is what
    hooks put in earlier left of the block's output.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        layer_indices: 0-based decoder blocks.

    Raises:
        ValueError: a layer the model does not have.
    """

    _states: dict[int, Tensor] | None = None  # a dictionary during `get_activations` alone

    def _see(self, layer: int, hidden: Tensor) -> None:
        if self._states is not None:
            self._states[layer] = hidden
            if len(self._states) == len(self._blocks):
                raise _DeepestBlock

    @undisturbed()
    @torch.no_grad()
    def get_activations(
        self, input_ids: Tensor, position: Position, attention_mask: Tensor | None = None, copies: int = 1
    ) -> dict[int, Tensor]:
        """Activations by layer, each `[batch, hidden]` float32, in hidden-state units.

        Args:
            input_ids: `[batch, seq]`, padded on either side.
            position: `"last_prompt_token"`, the last attended token; `"first_assistant_token"`, the token that the
                model itself would put after it (greedily); or an index into each row's attended tokens, negative from
                the end.
            attention_mask: `[batch, seq]`, 1 on tokens and 0 on padding; all ones if left out.
            copies: how often the rows are put, once for each adapter of a stack (see
                `gradinoc.measure.fast.stacked_adapters`): `[copies * batch, hidden]`, copy by copy.

        Raises:
            RuntimeError: called outside the `with` block.
            ValueError: an unknown position, or one outside a row's tokens; the first token of the assistant for several
                copies, in each of which it may be another.
        """
        if not self._handles:
            raise RuntimeError("No hooks in place: use the collector as `with ActivationCollector(...) as collector:`")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        prompt_tokens = attention_mask.sum(-1)
        if position == "first_assistant_token":
            if copies > 1:
                raise ValueError("The first token of the assistant: expected one copy, each adapter has its own")
            input_ids, attention_mask = self._append_next_token(input_ids, attention_mask)
        index = token_index(attention_mask, position)
        prompts = Prompts(input_ids, attention_mask, prompt_tokens)
        forward, place = prompt_pass(self.model, prompts, index, copies)
        states = self._forward(forward)
        return {layer: states[layer][place].float() for layer in self.layers}

    def _forward(self, forward: Callable[[], object]) -> dict[int, Tensor]:
        """What the blocks put out, `[batch, seq, hidden]`, in a forward pass that goes no deeper than it must."""
        states: dict[int, Tensor] = {}
        self._states = states
        try:
            forward()
        except _DeepestBlock:
            pass
        finally:
            self._states = None
        return states

    def _append_next_token(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        input_ids, attention_mask, _ = right_padded(input_ids, attention_mask)
        last = token_index(attention_mask, "last_prompt_token")
        logits = logits_at(self.model, model_inputs(input_ids, attention_mask), torch.unique(last))
        column = torch.searchsorted(torch.unique(last), last)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        longer_ids = nn.functional.pad(input_ids, (0, 1))
        longer_mask = nn.functional.pad(attention_mask, (0, 1))
        longer_ids[rows, last + 1] = logits[rows, column].argmax(-1)
        longer_mask[rows, last + 1] = 1
        return longer_ids, longer_mask


class _DeepestBlock(Exception):  # noqa: N818 - no error: every block asked for has been seen
    pass


class GradientCollector(BlockHooks):
    """Holds `dloss/dh[l]`, the gradients of the last backward pass with respect to the residual stream.

    Wrap forward and backward in it. On a frozen model the lowest layer asked for becomes a leaf that requires a
    gradient, so the backward pass goes no deeper than it must; a model in training is left as it is, and the gradients
    are those of its own backward pass. Works with gradient checkpointing of both kinds.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        layer_indices: 0-based decoder blocks.
        reduce: what to keep of a gradient, `(layer, [batch, seq, hidden]) -> Tensor`; everything if left out. Called
            inside the backward pass, so what it does not keep is never held for more than one layer.

    Raises:
        ValueError: a layer the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        layer_indices: Sequence[int],
        reduce: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model, layer_indices)
        self._reduce = reduce if reduce is not None else lambda _layer, gradient: gradient.detach().clone()
        self._gradients: dict[int, Tensor] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block no other collector of the model reads a pass."""
        own = vars(unwrapped(self.model))
        before = own.get(_ALONE)
        own[_ALONE] = self
        try:
            yield
        finally:
            own[_ALONE] = before
            if before is None:
                del own[_ALONE]

    def _see(self, layer: int, hidden: Tensor) -> None:
        if not torch.is_grad_enabled():  # the first pass of reentrant checkpointing: the second one has the gradient
            return
        if vars(unwrapped(self.model)).get(_ALONE, self) is not self:
            return
        if not hidden.requires_grad:
            hidden.requires_grad_()

        def keep(gradient: Tensor) -> None:
            with torch.no_grad():
                self._gradients[layer] = self._reduce(layer, gradient)

        hidden.register_hook(keep)

    def get_gradients(self) -> dict[int, Tensor]:
        """Gradients of the last backward pass by layer, `[batch, seq, hidden]` in the model's dtype (or as reduced).

        Raises:
            RuntimeError: no backward pass reached some layer.
        """
        missing = [layer for layer in self.layers if layer not in self._gradients]
        if missing:
            raise RuntimeError(
                f"No gradient at layers {missing}: expected one forward and one backward pass inside the `with` block, "
                "of a loss that depends on these layers"
            )
        gradients, self._gradients = self._gradients, {}
        return {layer: gradients[layer] for layer in self.layers}


def token_index(attention_mask: Tensor, position: Position) -> Tensor:
    """Column `[batch]` of the attended token at `position` in each row, whichever side the padding is on.

    Raises:
        ValueError: an unknown position, or one outside a row's tokens.
    """
    if position in ("last_prompt_token", "first_assistant_token"):
        position = -1
    if not isinstance(position, int):
        raise ValueError(f"Position {position!r}: expected 'last_prompt_token', 'first_assistant_token' or an integer")
    lengths = attention_mask.sum(-1)
    offset = lengths + position if position < 0 else torch.full_like(lengths, position)
    if bool(((offset < 0) | (offset >= lengths)).any()):
        raise ValueError(f"Position {position} is outside the shortest row, of {int(lengths.min())} tokens")
    return attention_mask.argmax(-1) + offset
