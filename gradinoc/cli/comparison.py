"""Two studies side by side, from what their reports left: verdicts, settings, claims, drift."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradinoc.claims.tables import MEASURES
from gradinoc.errors import StudyError, printable, reason
from gradinoc.report.tables import CLAIM_COLUMNS

ONE, OTHER = "first", "second"
NUMBERS = ("estimate", "low", "high", "p", "n")
COLUMNS = (
    "part", "item", "quantity", "first", "first_low", "first_high", "second", "second_low", "second_high", "difference",
)  # fmt: skip
# In another model's units, or after other steps: a difference of these would say nothing.
OF_ONE_MODEL = ("projection", "gradient norm")
OF_A_GATE = {"supported": "holds", "refuted": "fails"}
OF_ONE_TRAIT = ("score", "log.odds", "projection", "alignment", "direction", "isotropic", "unrelated")


@dataclass(frozen=True)
class Left:
    """What a study's report left in its folder: what was asked, what came of it."""

    folder: Path
    study: Mapping[str, Any]
    verdict: Mapping[str, Any]
    claims: pd.DataFrame
    runs: pd.DataFrame

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.get("name", self.folder.name))

    @property
    def conditions(self) -> list[str]:
        """The study's conditions in their order."""
        declared = self.study.get("conditions")
        return [str(condition) for condition in declared] if isinstance(declared, dict) else []


def read_left(folder: Path) -> Left:
    """What the report of a study left in `folder`.

    Raises:
        StudyError: a file is missing, damaged, or of another version.
    """
    study, verdict = (_json(folder / name) for name in ("study.json", "verdict.json"))
    claims, runs = _table(folder / "claims.csv", CLAIM_COLUMNS), _table(folder / "runs.csv", ("condition", "seed"))
    for column in NUMBERS:
        claims[column] = pd.to_numeric(claims[column], errors="coerce")
    return Left(folder, study, verdict, claims.drop_duplicates(["claim", "effect"]), runs)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise _missing(path, error) from error
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{printable(path)}: not JSON ({reason(error)}); write the report again") from error
    if not isinstance(found, dict):
        raise StudyError(f"{printable(path)}: expected an object, received another value; write the report again")
    return found


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        found = pd.read_csv(path)
    except OSError as error:
        raise _missing(path, error) from error
    except ValueError as error:  # another encoding, another form
        raise StudyError(f"{printable(path)}: not a table ({reason(error)}); write the report again") from error
    absent = [column for column in columns if column not in found]
    if absent:
        raise StudyError(f"{printable(path)}: expected the columns {list(columns)}, {absent} missing; report again")
    return found


def _missing(path: Path, error: OSError) -> StudyError:
    return StudyError(
        f"{printable(path)}: cannot be read ({reason(error)}); expected a study's folder in artifacts, with its "
        "report: gradinoc report DIR"
    )


def _status(finding: Mapping[str, Any]) -> str:
    status = str(finding.get("status"))
    return OF_A_GATE.get(status, status) if str(finding.get("key")).startswith("G") else status


def verdicts(left: Left) -> dict[str, str]:
    """Key -> status of each gate (which holds or fails) and claim, and the verdict."""
    findings = [each for part in ("gates", "claims") for each in left.verdict.get(part) or [] if isinstance(each, dict)]
    return {
        **{str(each.get("key")): _status(each) for each in findings},
        "verdict": str(left.verdict.get("verdict")),
    }


def differing_settings(first: Left, second: Left) -> list[tuple[str, str, str]]:
    """(key, value in the first, in the second) of every setting that differs, as JSON writes it; "" where it is not."""
    one, other = (dict(_flat(each.study)) for each in (first, second))
    keys = [key for key in {**one, **other} if key != "name" and one.get(key) != other.get(key)]
    return [(key, one.get(key, ""), other.get(key, "")) for key in keys]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, ensure_ascii=False)


def comparison(first: Left, second: Left) -> pd.DataFrame:
    """One row a quantity that either study has: `COLUMNS`.

    Part "claim": every effect, its interval with it. Part "drift": mean over seeds of what a condition's runs changed
    by, with the least and the largest. Part "p": p of every effect that has one. The difference, second - first, is
    missing where it would say nothing: of p, of counts of other things, of what is in the units of another model, and
    of what is along another trait's direction or about its answers.
    """
    rows = pd.concat([_claims(first, second), _drift(first, second)], ignore_index=True)
    same_model = all(_setting(first, "model", key) == _setting(second, "model", key) for key in ("id", "revision"))
    same_trait = first.study.get("trait") == second.study.get("trait")
    difference = rows[OTHER] - rows[ONE]
    foreign = rows["quantity"].str.contains("|".join(OF_ONE_MODEL)) & (not same_model)
    of_trait = rows["quantity"].str.contains("|".join(OF_ONE_TRAIT)) & (not same_trait)
    rows["difference"] = difference.where(~foreign & ~of_trait & (rows["part"] != "p"))
    return rows[list(COLUMNS)]


def _setting(left: Left, table: str, key: str) -> Any:
    section = left.study.get(table)
    return section.get(key) if isinstance(section, dict) else None


def _claims(first: Left, second: Left) -> pd.DataFrame:
    """Effects of either study in the first's order, those of the second alone after them; then every p."""
    keys = ["claim", "effect"]
    both = first.claims.dropna(subset=["effect"]).merge(
        second.claims.dropna(subset=["effect"]), on=keys, how="outer", suffixes=("_1", "_2"), sort=False
    )
    order = {
        pair: place
        for each in (second, first)
        for place, pair in enumerate(zip(*(each.claims[k] for k in keys), strict=True))
    }
    both = both.sort_values(
        keys,
        key=lambda _: [order.get(pair, len(order)) for pair in zip(both["claim"], both["effect"], strict=True)],
        kind="stable",
    )
    parts = []
    for part, names in (("claim", ("estimate", "low", "high")), ("p", ("p",))):
        rows = pd.DataFrame({"part": part, "item": both["claim"], "quantity": both["effect"]})
        for number, side in ((1, ONE), (2, OTHER)):
            for name, column in zip(names, (side, f"{side}_low", f"{side}_high"), strict=False):
                rows[column] = both[f"{name}_{number}"].astype(float)
        parts.append(rows.dropna(subset=[ONE, OTHER], how="all"))
    return pd.concat(parts, ignore_index=True)


def _drift(first: Left, second: Left) -> pd.DataFrame:
    """Change of each measure by condition: mean, least and largest over the runs of either study."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for left, side in ((first, ONE), (second, OTHER)):
        for measure in MEASURES:
            column = f"{measure}_drift"
            if column not in left.runs:
                continue
            values = pd.to_numeric(left.runs[column], errors="coerce")
            for condition, of_runs in values.groupby(left.runs["condition"].astype(str), sort=False):
                known = of_runs.dropna().to_numpy(dtype=float)
                numbers = (known.mean(), known.min(), known.max()) if len(known) else (np.nan,) * 3
                names = (side, f"{side}_low", f"{side}_high")
                found.setdefault((condition, measure), {}).update(zip(names, map(float, numbers), strict=True))
    order = [*first.conditions, *second.conditions]
    rows = [
        {"part": "drift", "item": condition, "quantity": measure, **numbers}
        for (condition, measure), numbers in sorted(found.items(), key=lambda item: _place(item[0][0], order))
    ]
    return pd.DataFrame(rows, columns=[column for column in COLUMNS if column != "difference"])


def _place(condition: str, order: Sequence[str]) -> int:
    """Where a condition stands among those that a study declares; undeclared ones come last."""
    return order.index(condition) if condition in order else len(order)
