"""The tables of a report: claims, metrics and runs; and how they are written down."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradinoc.claims.evidence.measures import in_window
from gradinoc.claims.evidence.tables import AFTER, BASE, BEFORE, DECISION, MEASURES, Evidence
from gradinoc.claims.rules.finding import Finding
from gradinoc.disk import write_atomically
from gradinoc.report.numbers import by_run, if_measured

CLAIM_COLUMNS = (
    "claim", "status", "effect", "key", "estimate", "low", "high", "level", "p", "against", "n", "unit", "method",
)  # fmt: skip
METRIC_COLUMNS = ("condition", "seed", "step", "layer", "position", "metric", "value")
GRADIENT_METRICS = ("alignment", "projection", "grad_norm")


def claims_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row per effect of every gate and claim; a finding without effects has one row, its numbers missing."""
    rows = []
    for finding in findings:
        first = {"claim": finding.key, "status": str(finding.status)}
        for effect in finding.effects:
            numbers = {column: getattr(effect, column) for column in CLAIM_COLUMNS[3:]}
            rows.append({**first, "effect": effect.name, **numbers})
        if not finding.effects:
            rows.append(first)
    return pd.DataFrame(rows, columns=list(CLAIM_COLUMNS)).astype({"n": "Int64"})


def metrics_table(evidence: Evidence) -> pd.DataFrame:
    """Long: condition, seed, step, layer, position, metric, value; a key that does not apply is empty.

    Means over examples: of the frozen base model (no seed), of each training step (seed and step), of each drift
    measure before and after training (condition `base` before) and of decision log-odds at each kept step, and the
    layers' separation (no condition).
    """
    layers = evidence.layers.melt(["layer"], ["cohens_d", "auc", "split_half_cosine"], "metric", "value")
    drift = evidence.drift.groupby(["condition", "seed", "phase", "measure"], sort=True)["value"].mean().reset_index()
    drift["metric"] = drift["measure"].astype(str) + "_" + drift["phase"].astype(str)
    drift["seed"] = drift["seed"].where(drift["condition"] != BASE)
    kept = evidence.checkpoints.groupby(["condition", "seed", "step"], sort=True)["log_odds"].mean().reset_index()
    kept = kept.rename(columns={"log_odds": "value"}).assign(metric=DECISION)
    parts = [
        layers,
        *_gradient_means(evidence.alignments, ["condition"]),
        *_gradient_means(evidence.training, ["condition", "seed", "step"]),
        drift,
        kept,
    ]
    table = pd.concat([part for part in parts if len(part)] or [layers], ignore_index=True)
    table = table.reindex(columns=list(METRIC_COLUMNS))
    return table.astype({"seed": "Int64", "step": "Int64", "layer": "Int64"})


def _gradient_means(frame: pd.DataFrame, keys: list[str]) -> list[pd.DataFrame]:
    """The loss by `keys`, and every gradient metric by `keys`, layer and position: means over examples."""
    losses = frame.drop_duplicates([*keys, "example"]).groupby(keys, sort=True)["loss"].mean().reset_index()
    places = [*keys, "layer", "position"]
    means = frame.groupby(places, sort=True)[list(GRADIENT_METRICS)].mean().reset_index()
    long = [losses.rename(columns={"loss": "value"}).assign(metric="loss")]
    return [*long, means.melt(places, list(GRADIENT_METRICS), "metric", "value")]


def runs_table(evidence: Evidence) -> pd.DataFrame:
    """One row a run: steps, losses, early alignment (first third of training), and each measure of drift."""
    table = evidence.runs
    early = if_measured(in_window, evidence)
    if early is not None:
        table = table.merge(by_run(early, "early_alignment"), on=["condition", "seed"], how="left")
    else:
        table = table.assign(early_alignment=math.nan)
    for measure in MEASURES:
        table = table.merge(_sides(evidence, measure).reset_index(), on=["condition", "seed"], how="left")
    return table.sort_values(["condition", "seed"], ignore_index=True)


def _sides(evidence: Evidence, measure: str) -> pd.DataFrame:
    """Means of a measure by run, before, after and their difference: of questions that were scored on both sides."""
    rows = evidence.drift[evidence.drift["measure"] == measure]
    before = rows[(rows["phase"] == BEFORE) & (rows["condition"] == BASE)].set_index("example")["value"]
    after = rows[rows["phase"] == AFTER]
    both = after.assign(pre=after["example"].map(before)).dropna(subset=["value", "pre"])
    means = both.groupby(["condition", "seed"], observed=True)[["pre", "value"]].mean()
    means = means.rename(columns={"pre": f"{measure}_pre", "value": f"{measure}_post"})
    return means.assign(**{f"{measure}_drift": means[f"{measure}_post"] - means[f"{measure}_pre"]})


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """`path`, the table as CSV: floats in full, NaN as nothing, the same bytes for the same table."""
    return write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())


def write_json(value: Any, path: Path) -> Path:
    """`path`, `value` as JSON: dataclasses as objects, numbers that are not finite as null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, f"{text}\n".encode())


def plain(value: Any) -> Any:
    """`value` in JSON's own types."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)
