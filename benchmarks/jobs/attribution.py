"""Inner products of gradients between training prompts and behaviours, through an adapter: ours and TracInCP."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.inputs import STYLE, Setting
from benchmarks.jobs.evaluation import make_adapters
from benchmarks.outcome import Comparison, Outcome
from benchmarks.workers import HERE, Side, take_turns, workers

SCRIPT = HERE / "sides" / "attribution.py"
SIDES = ("ours", "captum")
EXAMPLES, REPETITIONS = 2, 5
EXACT = 1e-4  # relative to the largest, float32


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that both find the same in float32, then time them on the same examples."""
    adapter, *_ = make_adapters(setting.scratch / "adapters", setting.model)
    systems = (None, setting.context.trait.inoculation_system, STYLE)
    splits = setting.context.splits
    work: dict[str, Any] = {
        "adapter": adapter,
        "training": [setting.encoded(splits.train[:EXAMPLES], system) for system in systems],
        "behaviours": [setting.encoded(splits.evaluation[:EXAMPLES], system) for system in systems],
    }
    with workers([Side(name, SCRIPT, options=(name,)) for name in SIDES], setting.scratch) as running:
        found = {}
        for name, worker in running.items():
            worker.ask("prepare", **work)
            found[name] = np.asarray(worker.ask("found"))
        away = np.abs(found["ours"] - found["captum"]).max() / np.abs(found["captum"]).max()
        outcome.check("ours", "largest deviation from captum, relative, float32", float(away), EXACT)
        setting.log(f"  {outcome.checks[-1]}")
        outcome.samples += take_turns(running, setting.times(REPETITIONS), on_sample=setting.log_sample)
    outcome.comparisons.append(Comparison("ours", "captum", 0.2, note="TracInCP, one gradient an example"))
