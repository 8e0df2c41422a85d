"""Parts of a block that go from token to token (convolutions, linear attention), on sequences in one row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradinoc.measure.fast.packed.forward import handed


def recurrence_of(module: Any) -> Any:
    """A forward for a module with a short convolution over tokens: sequence by sequence where they lie in one row."""
    convolves = any(isinstance(child, nn.Conv1d) for child in module.children())
    return _each_alone(type(module).forward) if convolves else None


def _each_alone(forward: Any) -> Any:
    """Every branch of the row's tree side by side, behind each other what it is shorter than the longest.

    What several branches begin with is computed for each of them: the state after it is not to be had from modules of
    transformers. Padding behind a sequence is out of its sight.
    """

    def alone(module: Any, hidden_states: Tensor, *given: Any, **named: Any) -> Any:
        layout, past = named.pop("layout", None), named.pop("past", None)
        if layout is None:
            layout, past = handed.get()
        if layout is None:
            return forward(module, hidden_states, *given, **named)
        states = hidden_states
        if past is not None:
            states = past.extended(module, states[:, None], states[:, None])[0][:, 0]
        branches = [(queries, torch.cat([states[0, each] for each in way])) for queries, way in layout.branches]
        padded = nn.utils.rnn.pad_sequence([branch for _, branch in branches], batch_first=True)
        mixed = torch.as_tensor(forward(module, padded, **{**named, "attention_mask": None}))
        parts = [
            row[len(branch) - (queries.stop - queries.start) : len(branch)]
            for row, (queries, branch) in zip(mixed, branches, strict=True)
        ]
        return torch.cat(parts)[None]

    return alone
