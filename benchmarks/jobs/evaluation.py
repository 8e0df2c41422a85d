"""Responses and log-odds of a base model and nine adapters: all in one pass, and one model after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

SCRIPT = HERE / "sides" / "evaluation.py"
SIDES = ("ours", "ours_one_by_one", "plain_one_by_one")
ADAPTERS, RANK, REPETITIONS = 9, 16, 5
# Of the questions so many are answered, in so many tokens, and so many have their answers scored.
TIMED = {"asked": 4, "scored": 2, "new_tokens": 16}
CHECKED = {"asked": 3, "scored": 2, "new_tokens": 24}
CLOSE = 1e-3  # nats/token between log-odds, hidden-state units between projections, in float32
STRENGTH = 0.004  # standard deviation of an adapter's upper factor: texts differ, and stay texts


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that all write the same in float32, word for word, then time them in bfloat16."""
    adapters = make_adapters(setting.scratch / "adapters", setting.model)
    questions = [vars(example) for example in setting.context.splits.evaluation[: TIMED["asked"]]]
    work = {"adapters": adapters, "questions": questions}
    _check(setting, outcome, work)
    with workers([Side(name, SCRIPT, options=(name,)) for name in SIDES], setting.scratch) as running:
        for worker in running.values():
            worker.ask("prepare", dtype="bfloat16", **work, **TIMED)
        outcome.samples += take_turns(running, setting.times(REPETITIONS), on_sample=setting.log_sample)
    outcome.comparisons += [
        Comparison("ours", "plain_one_by_one", 0.5, note="the model's own modules, padded batches"),
        Comparison("ours", "ours_one_by_one", None, note="our kernels on either side"),
    ]


def _check(setting: Setting, outcome: Outcome, work: dict[str, Any]) -> None:
    """Texts, log-odds and projections of every side in float32, on few questions."""
    found = {}
    for name in SIDES:
        with Worker(Side(f"{name}_float32", SCRIPT, options=(name,)), setting.scratch) as worker:
            worker.ask("prepare", dtype="float32", **work, **CHECKED)
            found[name] = worker.ask("found")
    expected = found["plain_one_by_one"]
    for name in SIDES[:2]:
        different = int((np.asarray(found[name]["texts"]) != np.asarray(expected["texts"])).sum())
        outcome.check(name, "texts that differ from plain, one by one, float32", different, 0)
        for what, unit in (("log_odds", "nats/token"), ("projection", "hidden-state units")):
            away = float(np.abs(np.subtract(found[name][what], expected[what])).max())
            outcome.check(name, f"{what.replace('_', '-')} against plain, one by one, {unit}, float32", away, CLOSE)
            setting.log(f"  {outcome.checks[-1]}")
    kinds = len({json.dumps(texts) for texts in expected["texts"]})
    setting.log(f"  {kinds} of {ADAPTERS + 1} models write something of their own")


def make_adapters(folder: Path, model: str) -> list[str]:
    """Folders of random adapters, of the shapes that a study trains; only the shapes of the model are needed."""
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(shapes, config).to_empty(device="cpu")
    made = []
    for seed in range(ADAPTERS):
        generator = torch.Generator().manual_seed(seed)
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                spread = STRENGTH if "lora_B" in name else weight.shape[1] ** -0.5
                weight.data = spread * torch.randn(weight.shape, generator=generator)
        made.append(str(folder / str(seed)))
        wrapped.save_pretrained(made[-1])
    return made
