"""Sides of the attribution job: inner products of gradients between training prompts and behaviours, one adapter.

Ours takes one gradient a prompt; captum's TracInCP one an example, and a mean over their products is the same number.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from captum.influence import TracInCP
from peft import PeftModel
from serving import serve
from torch import nn

from gradinoc.measure.attribution.slopes import inner, slope_of
from gradinoc.measure.fast import completion_losses, fused_adapter
from gradinoc.measure.loading.load import load_model
from gradinoc.models.chat.encoding import Encoded

MODEL, BATCH, IGNORED = "smollm2-135m-instruct", 4, -100
held: dict[str, Any] = {}
Rows = list[Encoded]


class Losses(nn.Module):
    """From rows of padded tokens to each row's mean loss over its completion, by the model's own modules."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Losses `[batch]`, nats/token."""
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        wanted = labels[:, 1:]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return losses.view(wanted.shape).sum(1) / (wanted != IGNORED).sum(1)


def prepare(adapter: str, training: Sequence[Sequence[Any]], behaviours: Sequence[Sequence[Any]]) -> None:
    """Load the model in float32 with the adapter, and the examples of each prompt."""
    kernels = "fused" if sys.argv[1] == "ours" else "plain"
    loaded = load_model(MODEL, device="cpu", dtype="float32", kernels=kernels)
    held["model"] = PeftModel.from_pretrained(loaded.model, adapter, is_trainable=True).eval()
    held["pad"] = int(loaded.tokenizer.pad_token_id)
    for name, groups in (("training", training), ("behaviours", behaviours)):
        held[name] = [[Encoded(tuple(ids), length) for ids, length in rows] for rows in groups]


def ours() -> list[list[float]]:
    """Training prompts x behaviours."""

    def losses(model: nn.Module, batch: Any, _rows: Sequence[int]) -> torch.Tensor:
        return completion_losses(model, batch)

    with fused_adapter(held["model"]):
        found = {
            name: [slope_of(held["model"], rows, losses, held["pad"], BATCH).gradient for rows in held[name]]
            for name in ("training", "behaviours")
        }
    return [[inner(one, other) for other in found["behaviours"]] for one in found["training"]]


def captum() -> list[list[float]]:
    """The same by TracInCP: every training example on every one of the behaviours', in one call."""
    model = Losses(held["model"])
    layers = [name for name, _ in model.named_modules() if "lora_" in name and name.endswith(".default")]
    train = [row for rows in held["training"] for row in rows]
    test = [row for rows in held["behaviours"] for row in rows]
    tracin = TracInCP(
        model, torch.utils.data.TensorDataset(*_padded(train)), ["only"], lambda *_: 1.0, layers,
        loss_fn=lambda found, _: found, batch_size=BATCH,
    )  # fmt: skip
    products = tracin.influence(_padded(test)).double().T  # [training, behaviours]
    sizes = [len(rows) for rows in held["training"]], [len(rows) for rows in held["behaviours"]]
    blocks = [part.split(sizes[1], dim=1) for part in products.split(sizes[0])]
    return [[float(block.mean()) for block in row] for row in blocks]


def _padded(rows: Rows) -> tuple[torch.Tensor, ...]:
    """Token ids, mask, labels `[rows, tokens]`, and a label that TracInCP hands on and nobody reads."""
    ids = [torch.tensor(row.ids) for row in rows]
    labels = [torch.cat([torch.full((row.prompt_length,), IGNORED), each[row.prompt_length :]])
              for row, each in zip(rows, ids, strict=True)]  # fmt: skip

    def padded(values: list[torch.Tensor], value: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=value)

    mask = padded([torch.ones_like(each) for each in ids], 0)
    return padded(ids, held["pad"]), mask, padded(labels, IGNORED), torch.zeros(len(rows))


WORK = ours if sys.argv[1] == "ours" else captum


def found() -> list[list[float]]:
    """The inner products, for comparison."""
    return WORK()


def repeat() -> None:
    """The work once."""
    WORK()


if __name__ == "__main__":
    serve({"prepare": prepare, "found": found, "repeat": repeat})
