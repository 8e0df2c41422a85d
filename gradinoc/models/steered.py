"""Marks on a model whose passes are changed, for code that packs its rows together or puts them in another order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gradinoc.models.blocks import unwrapped

_ATTRIBUTE = "_gradinoc_steered"  # one flag for each steering in place: whether rows are steered differently
_APART = "_gradinoc_apart"  # how many ask that examples share no tokens


@contextmanager
def marked(model: nn.Module, by_row: bool) -> Iterator[None]:
    """Inside the block `model` counts as steered; `by_row` says whether each row has a vector or place of its own."""
    own = vars(unwrapped(model))
    own[_ATTRIBUTE] = (*own.get(_ATTRIBUTE, ()), by_row)
    try:
        yield
    finally:
        own[_ATTRIBUTE] = own[_ATTRIBUTE][:-1]
        if not own[_ATTRIBUTE]:
            del own[_ATTRIBUTE]


def is_steered(model: nn.Module) -> bool:
    """Whether `model`, wrapped by PEFT or not, is steered."""
    return _ATTRIBUTE in vars(unwrapped(model))


def refuse_reordering(model: nn.Module) -> None:
    """Stop where rows are about to be sorted or split into batches, if the model is steered row by row.

    Raises:
        ValueError: it is: each row would be steered as another one should be.
    """
    if any(vars(unwrapped(model)).get(_ATTRIBUTE, ())):
        raise ValueError(
            "The model is steered row by row, and this function sorts rows and splits them into batches: expected one "
            "vector and 'last_prompt_token' or 'all' for every row; or call the model on batches of your own"
        )


@contextmanager
def apart(model: nn.Module) -> Iterator[None]:
    """Inside the block examples of batches for backward passes share no tokens: each token's gradient is of one."""
    own = vars(unwrapped(model))
    own[_APART] = own.get(_APART, 0) + 1
    try:
        yield
    finally:
        own[_APART] -= 1
        if not own[_APART]:
            del own[_APART]


def is_apart(model: nn.Module) -> bool:
    """Whether examples of `model`, wrapped by PEFT or not, are to share no tokens."""
    return _APART in vars(unwrapped(model))
