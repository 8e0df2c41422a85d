"""Sides of the evaluation job: every model in one pass, or one after another, fused or with the model's own modules.

All measure as a study does, by `gradinoc.measure.behaviour.drift`: responses to held-out questions, projections,
log-odds. The adapters are loaded beforehand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
from peft import PeftModel
from serving import serve

from gradinoc.data.examples import Example
from gradinoc.data.splits import Splits
from gradinoc.measure.behaviour.drift import measure_drift
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast import fused_adapter, stacked_adapters
from gradinoc.measure.loading.load import load_model
from gradinoc.study.settings import DriftSettings
from gradinoc.study.traits import ALL_CAPS

MODEL, LAYERS = "smollm2-135m-instruct", range(12, 18)  # of a band in the middle
Tables = tuple[pd.DataFrame, pd.DataFrame]
held: dict[str, Any] = {}


def prepare(
    dtype: str, adapters: Sequence[str], questions: Sequence[dict[str, Any]], asked: int, scored: int, new_tokens: int
) -> None:
    """Load the model, its adapters and the questions: the first `asked` are answered, the first `scored` scored."""
    kernels = "plain" if sys.argv[1].startswith("plain") else "fused"
    loaded = load_model(MODEL, device="cpu", dtype=dtype, kernels=kernels)
    wrapped = PeftModel.from_pretrained(loaded.model, adapters[0], adapter_name="adapter_0")
    for place, folder in enumerate(adapters[1:], start=1):
        wrapped.load_adapter(folder, f"adapter_{place}")
    examples = tuple(Example(**question) for question in questions)
    (direction,) = isotropic_directions(1, wrapped.config.hidden_size, 0)
    held["model"] = wrapped.eval()
    held["work"] = (
        Splits((), (), (), examples, (), ()), ALL_CAPS, dict.fromkeys(LAYERS, direction),
        DriftSettings(generations=asked, log_odds=scored, max_new_tokens=new_tokens), None,
    )  # fmt: skip
    held["tokenizer"] = loaded.tokenizer


def stacked() -> list[Tables]:
    """Measures and responses of the base model and each adapter, in one pass over all."""
    names = ["", *held["model"].peft_config]
    language_model = (held["model"], held["tokenizer"])
    with stacked_adapters(held["model"], names):
        return measure_drift(language_model, *held["work"], domains=["in_distribution"], copies=len(names))


def one_by_one() -> list[Tables]:
    """The same, a model at a time."""
    model = held["model"]
    with model.disable_adapter():
        found = [_one()]
    for name in list(model.peft_config):
        model.set_adapter(name)
        with fused_adapter(model):
            found.append(_one())
    return found


def _one() -> Tables:
    return measure_drift((held["model"], held["tokenizer"]), *held["work"], domains=["in_distribution"])[0]


WORK = stacked if sys.argv[1] == "ours" else one_by_one


def found() -> dict[str, Any]:
    """Texts, log-odds and projections by model, for comparison."""
    tables = WORK()
    values = {
        name: [measures.loc[measures["measure"] == name, "value"].tolist() for measures, _ in tables]
        for name in ("log_odds", "projection")
    }
    return {"texts": [responses["response"].tolist() for _, responses in tables], **values}


def repeat() -> None:
    """The work once."""
    WORK()


if __name__ == "__main__":
    serve({"prepare": prepare, "found": found, "repeat": repeat})
