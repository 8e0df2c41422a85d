"""Sides of the evaluation job: every model in one pass, or one after another, fused or with the model's own modules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from peft import PeftModel
from serving import serve

from gradinoc.chat import encode_prompt
from gradinoc.data import Example
from gradinoc.drift import trait_log_odds
from gradinoc.fused import fused_adapter, stacked_adapters
from gradinoc.models import generate, generate_copies, load_model
from gradinoc.traits import ALL_CAPS

MODEL, BATCH = "smollm2-135m-instruct", 8
held: dict[str, Any] = {}


def prepare(dtype: str, new_tokens: int, adapters: Sequence[str], questions: Sequence[dict[str, Any]]) -> None:
    """Load the model (once a dtype), its adapters, and the questions."""
    if held.get("dtype") != dtype:
        kernels = "plain" if sys.argv[1].startswith("plain") else "fused"
        loaded = load_model(MODEL, device="cpu", dtype=dtype, kernels=kernels)
        wrapped = PeftModel.from_pretrained(loaded.model, adapters[0], adapter_name="adapter_0")
        for place, folder in enumerate(adapters[1:], start=1):
            wrapped.load_adapter(folder, f"adapter_{place}")
        held.update(model=wrapped.eval(), tokenizer=loaded.tokenizer, dtype=dtype)
    examples = [Example(**question) for question in questions]
    prompts = [encode_prompt(held["tokenizer"], example.question, None) for example in examples]
    held.update(examples=examples, prompts=prompts, new_tokens=new_tokens)


def stacked() -> tuple[list[list[str]], Any]:
    """Texts and log-odds of the base model and each adapter, in one pass over all."""
    model, names = held["model"], ["", *held["model"].peft_config]
    with stacked_adapters(model, names):
        texts = generate_copies(model, held["tokenizer"], held["prompts"], held["new_tokens"], BATCH, len(names))
        return texts, trait_log_odds(model, held["tokenizer"], held["examples"], ALL_CAPS, BATCH, None, len(names))


def one_by_one() -> tuple[list[list[str]], Any]:
    """The same, a model at a time."""
    model, texts, odds = held["model"], [], []
    with model.disable_adapter():
        _one(texts, odds)
    for name in list(model.peft_config):
        model.set_adapter(name)
        with fused_adapter(model):
            _one(texts, odds)
    return texts, np.stack(odds)


def _one(texts: list[list[str]], odds: list[Any]) -> None:
    model, tokenizer = held["model"], held["tokenizer"]
    texts.append(generate(model, tokenizer, held["prompts"], held["new_tokens"], BATCH))
    odds.append(trait_log_odds(model, tokenizer, held["examples"], ALL_CAPS, BATCH, None))


WORK = stacked if sys.argv[1] == "stacked" else one_by_one


def found() -> dict[str, Any]:
    """Texts and log-odds, for comparison."""
    texts, odds = WORK()
    return {"texts": texts, "log_odds": np.asarray(odds).tolist()}


def repeat() -> None:
    """The work once."""
    WORK()


if __name__ == "__main__":
    serve({"prepare": prepare, "found": found, "repeat": repeat})
