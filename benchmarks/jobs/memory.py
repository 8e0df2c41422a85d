"""Peak memory of a training step and of drift at the shapes of Qwen2.5-Coder-0.5B, whose vocabulary is large."""

from __future__ import annotations

from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker

SHAPE, DTYPE, TOKENS, BATCH = "qwen2.5-coder-0.5b", "bfloat16", 512, 4
ALLOWED = 1.5e9  # bytes beyond the weights
PEAK = "peak memory less weights"
EXACT, ROUNDED = 1e-3, 0.05  # alignments and losses of two layers against plain float32: in float32, in bfloat16
CHECKPOINTED = {"checkpointing": True}
WORK: dict[str, tuple[str, dict[str, bool]]] = {
    "training step": ("train", {}), "training step, checkpointed": ("train", CHECKPOINTED), "drift": ("drift", {}),
}  # fmt: skip


def run(setting: Setting, outcome: Outcome) -> None:
    """Check two layers of the shape against the model's own modules, then measure, each in a process of its own."""
    with Worker(Side("check", HERE / "sides" / "cuda.py"), setting.scratch) as worker:
        for name, away in worker.ask("deviations", shape=SHAPE, device="cpu").items():
            outcome.check("ours", f"{name}, two layers of {SHAPE}", away, EXACT if "32" in name else ROUNDED)
    for name, (work, options) in WORK.items():
        with Worker(Side(work, HERE / "sides" / "memory.py"), setting.scratch) as worker:
            parts = worker.ask("prepare", shape=SHAPE, dtype=DTYPE)
            peak = worker.ask(work, tokens=TOKENS, batch_size=BATCH, **options)
        weights, before = parts["weights"], parts["before"]
        outcome.figures += [
            Value("ours", PEAK, peak - weights, name),
            Value("allowed", PEAK, ALLOWED, name),
            Value("ours", "weights", weights, name),
            Value("ours", "libraries", before - weights, name),
        ]
        setting.log(
            f"  {name}: {peak / 1e9:.2f} GB = weights {weights / 1e9:.2f} + libraries {(before - weights) / 1e9:.2f} + "
            f"{(peak - before) / 1e9:.2f}"
        )
        outcome.comparisons.append(
            Comparison("ours", "allowed", 1.0, name, PEAK, f"{BATCH} x {TOKENS} tokens, {SHAPE}, libraries included")
        )
