"""Compare two studies by the files of their reports: verdicts, settings, claims, drift."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from gradinoc.claims.evidence.tables import MEASURES
from gradinoc.errors import StudyError, reason
from gradinoc.report.wording import word

ONE, OTHER = "first", "second"
PARTS = ["claim", "p", "drift"]
NUMBERS = ("estimate", "low", "high", "p", "n")
COLUMNS = (
    "part", "item", "quantity", "key", "first", "first_low", "first_high", "second", "second_low", "second_high",
    "difference",
)  # fmt: skip
# Words of keys: in the units of one model; and comparable whatever the trait.
OF_ONE_MODEL = {"projection", "grad_norm"}
OF_ANY_TRAIT = {"auc", "split_half", "loss", "fall", "unscorable", "grad_norm"}


@dataclass(frozen=True)
class StudyArtifacts:
    """The files of a study's report: its description, verdict, claims and runs."""

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


def read_artifacts(folder: Path) -> StudyArtifacts:
    """Return the files of the report in `folder`.

    Raises:
        StudyError: a file is missing, damaged, or of another version.
    """
    study, verdict = (_read(folder / name, _object) for name in ("study.json", "verdict.json"))
    claims = _read(folder / "claims.csv", partial(_table, ("claim", "effect", "key", *NUMBERS)))
    runs = _read(folder / "runs.csv", partial(_table, ("condition", "seed")))
    for column in NUMBERS:
        claims[column] = pd.to_numeric(claims[column], errors="coerce")
    return StudyArtifacts(folder, study, verdict, claims.drop_duplicates(["claim", "key"]), runs)


def _read(path: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be read ({reason(error)}); expected a study's folder in artifacts, with its report: "
            "gradinoc report DIR"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path}: damaged, or of another version ({reason(error)}); write the report again") from error


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def _table(columns: Sequence[str], content: bytes) -> pd.DataFrame:
    found = pd.read_csv(io.BytesIO(content))
    if absent := [column for column in columns if column not in found]:
        raise ValueError(f"expected the columns {list(columns)}, {absent} missing")
    return found


def verdicts(report: StudyArtifacts) -> dict[str, str]:
    """Return key -> status of each gate (which holds or fails) and claim, the verdict, and version 1's as published."""
    findings = [each for part in ("gates", "claims") for each in report.verdict.get(part) or []]
    found = {str(each.get("key")): str(each.get("status")) for each in findings}
    named = {key: word(key, status) for key, status in found.items()}
    first = (report.verdict.get("published") or {}).get("first_verdict")
    published = {"verdict by rules 1, published": str(first)} if first else {}
    rules = str(report.verdict.get("rules", 1))
    return {**named, "verdict": str(report.verdict.get("verdict")), "version of the rules": rules, **published}


def differing_settings(first: StudyArtifacts, second: StudyArtifacts) -> list[tuple[str, str, str]]:
    """Return (key, value in the first, in the second), as JSON, of each setting that differs; "" where it is absent."""
    one, other = (dict(_flat(each.study)) for each in (first, second))
    keys = [key for key in {**one, **other} if key != "name" and one.get(key) != other.get(key)]
    return [(key, one.get(key, ""), other.get(key, "")) for key in keys]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, ensure_ascii=False)


def comparison(first: StudyArtifacts, second: StudyArtifacts) -> pd.DataFrame:
    """Return a row a quantity that either study has: `COLUMNS`, in the order of the first.

    Part "claim": every effect with its interval. Part "p": p of every effect that has one. Part "drift": a condition's
    mean drift over its runs, with the least and the largest. The difference, second - first, is missing of p, of
    quantities in the units of another model, and of those along another trait's direction or about its answers.
    """
    one, other = _quantities(first), _quantities(second)
    places = one.index.append(other.index).unique()
    both = pd.concat({ONE: one.reindex(places), OTHER: other.reindex(places)}, axis=1)
    names = both[ONE, "quantity"].fillna(both[OTHER, "quantity"])
    both = both.drop(columns=[(ONE, "quantity"), (OTHER, "quantity")]).astype(float)
    both.columns = [f"{side}_{number}".removesuffix("_value") for side, number in both.columns]
    rows = both.assign(quantity=names).dropna(subset=[ONE, OTHER], how="all").reset_index()
    rows = rows.sort_values("part", key=lambda parts: parts.map(PARTS.index), kind="stable", ignore_index=True)
    comparable = _comparable(first, second)
    compared = [part != "p" and comparable(key) for part, key in zip(rows["part"], rows["key"], strict=True)]
    rows["difference"] = (rows[OTHER] - rows[ONE]).where(compared)
    return rows[list(COLUMNS)]


def _comparable(first: StudyArtifacts, second: StudyArtifacts) -> Callable[[str], bool]:
    """Return a function that says whether a key's effects, or drift, can be compared between the studies."""
    one, other = (dict(_flat(each.study)) for each in (first, second))
    same_model = all(one.get(key) == other.get(key) for key in ("model.id", "model.revision"))
    same_trait = first.study.get("trait") == second.study.get("trait")

    def comparable(key: str) -> bool:
        words = key.split(".")
        of_any_trait = words[0] in OF_ANY_TRAIT or words[-1] == "loss"
        return (same_model or not OF_ONE_MODEL & {*words}) and (same_trait or of_any_trait)

    return comparable


def _quantities(report: StudyArtifacts) -> pd.DataFrame:
    """Return every effect, p and drift of a study: value, low, high and name by part, item and key."""
    effects = report.claims.dropna(subset=["effect"]).rename(columns={"claim": "item", "effect": "quantity"})
    effects["key"] = effects["key"].fillna("")
    claims = effects.assign(part="claim", value=effects["estimate"])
    p = effects.assign(part="p", value=effects["p"], low=float("nan"), high=float("nan"))
    table = pd.concat([claims, p, _drift(report)], ignore_index=True)
    return table.set_index(["part", "item", "key"])[["value", "low", "high", "quantity"]]


def _drift(report: StudyArtifacts) -> pd.DataFrame:
    """Return the change of each measure by trained prompt: mean, least and largest over the runs."""
    names = {f"{measure}_drift": measure for measure in MEASURES if f"{measure}_drift" in report.runs}
    runs = report.runs.assign(item=report.runs["condition"].astype(str))
    long = runs.melt(["item"], list(names), "quantity", "value").replace({"quantity": names})
    long["value"] = pd.to_numeric(long["value"], errors="coerce")
    found = (
        long.groupby(["item", "quantity"], sort=False)["value"].agg(value="mean", low="min", high="max").reset_index()
    )
    order = {condition: place for place, condition in enumerate(report.conditions)}
    found = found.sort_values("item", key=lambda items: items.map(order).fillna(len(order)), kind="stable")
    return found.assign(part="drift", key=found["quantity"])
