"""Write the pages of docs/results, and others with a template, from studies' records: `python docs/make_results.py`.

A page is made of its template, `PAGE.md.j2`, in which no number is typed: `study("smollm2")` is the record that
`gradinoc export record` left in docs/smollm2. Templates whose name begins with `_` are parts of others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from gradinoc.report.exports.record import NEEDED, Record
from gradinoc.report.reproduction import CLAIMS, Agreement, agrees
from gradinoc.report.wording import number, signs, status_word
from gradinoc.stats.effect import Effect
from gradinoc.stats.regression.prediction import FEWEST, left_out_r2

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
TEMPLATES = sorted(each for folder in (DOCS, RESULTS) for each in folder.glob("*.md.j2") if each.name[0] != "_")
PAGES = [each.with_suffix("") for each in TEMPLATES]


def rendered(template: Path, records: Path = DOCS) -> str:
    """Return what a template comes to with the records in the folders of `records`."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, RESULTS]), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=select_autoescape(("html.j2",)),
    )  # fmt: skip
    filters = (number, estimate, brief, short, told, within, signs, cell)
    environment.filters |= {each.__name__: each for each in filters} | {"word": status_word}
    names = {"study": lambda name: Record(records / name), "reproduction": lambda name: Reproduction(records / name)}
    functions = (files, figure, failing, over, over_runs, between, moved, ran, sure, wordings, left, bound, foretells)
    environment.globals |= names | {each.__name__: each for each in functions}
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(template.name).render())


def estimate(effect: Effect | None) -> str:
    """An estimate with its interval, p and n, in three digits."""
    if effect is None:
        return "–"
    if not math.isfinite(effect.estimate):
        return f"not measurable (n {effect.n} {effect.unit})"
    told = f"{effect.estimate:{'+' if effect.estimate else ''}.3g}"
    told += f" [{effect.low:+.3g}, {effect.high:+.3g}]" if math.isfinite(effect.low) else ""
    if math.isfinite(effect.p):
        told += f", p {effect.p:.2g}" + (f" against {effect.against:g}" if effect.against else "")
    return f"{told} (n {effect.n} {effect.unit})".replace("e-0", "e−").replace("-", "−")


def brief(effect: Effect | None) -> str:
    """An estimate with its interval, as `short` writes numbers."""
    if effect is None or not effect.n:
        return "–"
    interval = f" [{short(effect.low)}, {short(effect.high)}]" if math.isfinite(effect.low) else ""
    return short(effect.estimate) + interval


def short(value: float) -> str:
    """A number in two digits, from what they would round to one on in three."""
    if not math.isfinite(value):
        return "not measurable"
    return f"{value:.{2 if abs(value) < 0.995 else 3}g}".replace("e-0", "e−").replace("-", "−")


def cell(text: str) -> str:
    """Text as it stands in a cell of a table."""
    return text.replace("|", r"\|")


def files(record: Record) -> str:
    """Links to the files of a record."""
    return ", ".join(f"[{name}](../{record.folder.name}/{name})" for name in NEEDED if name.endswith(".csv"))


@dataclass(frozen=True)
class Reproduction:
    """A study beside itself, computed a second time: `again/` in its record has the comparison and its surroundings."""

    folder: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """What `gradinoc reproduce` left."""
        return pd.read_csv(self.folder / "again" / "reproduction.csv")

    kinds = tuple(map(str, Agreement))

    @property
    def counts(self) -> dict[str, list[int]]:
        """How many numbers of each table are of each kind."""
        counted = pd.crosstab(self.table["table"], self.table["agreement"])
        counted = counted.reindex(self.table["table"].unique()).reindex(columns=[*self.kinds], fill_value=0)
        return {
            str(name): [int(count) for count in row]
            for name, row in zip(counted.index, counted.to_numpy(), strict=True)
        }

    @property
    def says(self) -> str:
        """Whether it agrees."""
        return "agrees" if agrees(self.table) else "does not agree"

    @property
    def apart(self) -> list[dict[str, Any]]:
        """Rows that differ."""
        return _records(self.table[self.table["agreement"] == Agreement.DIFFERENT])

    @property
    def claims(self) -> list[dict[str, Any]]:
        """Rows of gates and claims."""
        return _records(self.table[self.table["table"] == CLAIMS])

    @property
    def computed(self) -> str:
        """When and on what it was computed again."""
        return Record(self.folder / "again").computed


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def told(value: Any) -> str:
    """A number of a comparison, or a status."""
    try:
        return number(float(value))
    except ValueError:
        return str(value)


def within(row: Mapping[str, Any]) -> str:
    """What a fresh number is within noise in."""
    low, high = (float(row[end]) for end in ("low", "high"))
    return f" [{number(low)}, {number(high)}]" if math.isfinite(low) else ""


def over(record: Record, family: str, column: str = "drift", but: str = "") -> str:
    """The range of a column of prompts.csv over a family's prompts of fixed wording that runs were trained under."""
    prompts = record.table("prompts")
    chosen = prompts["trained"] & (prompts["kind"] == "fixed") & (prompts["family"] == family)
    values = prompts.loc[chosen & (prompts["condition"] != but), column]
    if values.empty:
        return "(no run)"
    low, high = short(values.min()), short(values.max())
    return low if low == high else f"{low} to {high}"


def moved(record: Record, condition: str, evaluation: str) -> str:
    """How far runs trained under a prompt moved decision log-odds under another, in nats."""
    cells = record.table("matrix").set_index(["condition", "evaluation"])
    return short(cells.loc[(condition, evaluation), "drift"])


def ran(record: Record, condition: str, column: str) -> str:
    """The mean of a column of runs.csv over a condition's runs."""
    return short(_of_runs(record, condition, column).mean())


def over_runs(record: Record, condition: str, column: str) -> str:
    """The range of a column of runs.csv over a condition's runs."""
    values = _of_runs(record, condition, column)
    return f"{short(values.min())} to {short(values.max())}"


def between(record: Record, first: str, second: str, column: str) -> str:
    """By how much the means of a column of runs.csv over the runs of two conditions differ."""
    return short(_of_runs(record, first, column).mean() - _of_runs(record, second, column).mean())


def _of_runs(record: Record, condition: str, column: str) -> pd.Series:
    runs = record.table("runs")
    return runs.loc[runs["condition"] == condition, column]


def fixed(record: Record) -> pd.DataFrame:
    """Prompts of fixed wording that runs were trained under: family, and means over their runs of what runs.csv has."""
    prompts = record.table("prompts").set_index("condition")
    chosen = prompts[prompts["trained"] & (prompts["kind"] == "fixed")]
    return chosen[["family"]].join(record.table("runs").groupby("condition").mean(numeric_only=True))


def left(record: Record, family: str, column: str) -> str:
    """A family's mean of a column of runs.csv, prompts as unit, as a share of neutral runs'; – where that is zero."""
    means = fixed(record).groupby("family")[column].mean()
    return short(means[family] / means["neutral"]) if means["neutral"] else "–"


def bound(record: Record, family: str) -> str:
    """Drift under the own prompt less that under unseen harmless ones, nats: mean and range of a family's prompts."""
    cells = record.table("matrix").pivot_table(index="condition", columns="evaluation", values="drift")
    elsewhere = cells.filter(regex="^unseen").mean(axis=1)
    prompts = fixed(record)
    values = [cells.loc[name, name] - elsewhere[name] for name in prompts.index[prompts["family"] == family]]
    apart = f" ({short(min(values))} to {short(max(values))} of {len(values)} prompts)" if len(values) > 1 else ""
    return f"{short(sum(values) / len(values))}{apart}"


def foretells(record: Record, column: str, drift: str = "drift") -> str:
    """How well a column of prompts.csv predicts the drift of a prompt from all others': R², and which way it goes."""
    prompts = record.table("prompts").set_index("condition").loc[fixed(record).index]
    known = prompts[prompts["family"] != "neutral"][[column, drift]].dropna()
    if len(known) < FEWEST:
        return "–"
    way = "rising" if known.corr().iloc[0, 1] > 0 else "falling"
    return f"{short(left_out_r2(known[column], known[drift]))} ({way})"


def sure(record: Record, claim: str, key: str) -> str:
    """Whether an effect is shown to be above zero: its interval is."""
    effect = record.effect(claim, key)
    return "shown" if effect is not None and effect.low > 0 else "not shown"


def failing(record: Record) -> str:
    """The gates of a study that fail."""
    gates = (claim for claim in record.table("claims")["claim"].unique() if claim.startswith("G"))
    return ", ".join(gate for gate in gates if record.status(gate) == "fails") or "none"


def wordings(record: Record) -> list[dict[str, Any]]:
    """A row a prompt that was measured or trained under; its words stand in the study's frozen plan, if it has one."""
    plan = RESULTS / f"{record.name}-plan.json"
    planned = json.loads(plan.read_text("utf-8"))["prompts"] if plan.is_file() else {}
    rows = _records(record.table("prompts"))
    return [{**row, "words": _words(planned, row["condition"])} for row in rows]


def _words(planned: Mapping[str, Any], condition: str) -> str:
    if condition not in planned:
        return "–"
    text = planned[condition]["text"]
    if text is None:
        return "(no system message; the chat template puts its own, if it has one)"
    if text == "":
        return "(an empty system message)"
    return text if isinstance(text, str) else f"(for each example one of {len(text)}, as: {text[0]})"


def figure(record: Record, name: str, width: int = 80, alt: str = "") -> str:
    """A picture with what it shows, or `alt` where that stands beside it; nothing where the study has none."""
    if name not in record.figures:
        return ""
    words = (alt or record.figures[name]["finding"]).replace('"', "&quot;")
    return f'<img src="../{record.folder.name}/figures/{name}.png" width="{width}%" alt="{words}">'


if __name__ == "__main__":
    for template, page in zip(TEMPLATES, PAGES, strict=True):
        page.write_text(rendered(template), "utf-8")
