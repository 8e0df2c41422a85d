"""A study's record: the part of its artifacts that is published, and what pages about it read."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from gradinoc.claims.rules.finding import Finding, Status
from gradinoc.disk import disk_errors, write_atomically
from gradinoc.errors import StudyError, reason, shown
from gradinoc.report.exports.tables import read_table
from gradinoc.report.figures import FIGURES
from gradinoc.report.folder import DESCRIPTION, FROZEN_PLAN
from gradinoc.report.tables import write_json, write_table
from gradinoc.report.wording import word
from gradinoc.stats.effect import Effect
from gradinoc.study.settings import DATA_FILES

VERDICT, ENVIRONMENT = "verdict.json", "environment.json"
WORDS = "figures/figures.json"  # each figure's finding and caption
TABLES = ("claims", "runs", "prompts", "matrix")
ARMED = ("arms", "energies")  # tables of a study with interventions
NEEDED = (VERDICT, ENVIRONMENT, DESCRIPTION, WORDS, *(f"{name}.csv" for name in TABLES))
COLOURS = 256  # of a published picture, so that it is small


@dataclass(frozen=True)
class Record:
    """What was published of a study, in a folder; older ones have the tables alone."""

    folder: Path

    @property
    def name(self) -> str:
        """The study's, which is that of a folder.

        Raises:
            StudyError: it is none.
        """
        name = str(self.study.get("name"))
        if name != Path(name).name or name in ("", ".", ".."):
            raise StudyError(
                f"{self.folder / DESCRIPTION}: calls the study {shown(name)}; expected the name of a folder"
            )
        return name

    @cached_property
    def verdict(self) -> dict[str, Any]:
        """What `verdict.json` says: verdict, sentence, warnings, and gates and claims as JSON."""
        return _json(self.folder / VERDICT)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Where the study was computed, with what, and the plan that was frozen before, if one was."""
        return _json(self.folder / ENVIRONMENT)

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study's description."""
        return _json(self.folder / DESCRIPTION)

    @cached_property
    def findings(self) -> dict[str, Finding]:
        """Gates, then claims, by key, without the criteria that were looked at."""
        return {each["key"]: _finding(each) for each in (*self.verdict["gates"], *self.verdict["claims"])}

    @cached_property
    def figures(self) -> dict[str, dict[str, str]]:
        """What each published picture shows (`finding`, its alternative text) and its `caption`, by name."""
        words = _json(self.folder / WORDS)
        return {name: each for name, each in words.items() if self.picture(name).is_file()}

    def picture(self, name: str) -> Path:
        """The file of a figure."""
        return self.folder / "figures" / f"{name}.png"

    @cached_property
    def effects(self) -> dict[tuple[str, str], Effect]:
        """Every effect of `claims.csv`, by the key of its gate or claim and its own."""
        rows = self.table("claims").dropna(subset="effect").to_dict("records")
        return {(row["claim"], row["key"]): _read(row) for row in rows}

    def effect(self, claim: str, key: str) -> Effect | None:
        """An effect of a gate or claim; None where the study did not measure it."""
        return self.effects.get((claim, key))

    def status(self, claim: str) -> str | None:
        """What became of a gate or claim, in a word; None where the study did not run it."""
        found = self.table("claims").set_index("claim")["status"].get(claim)
        if found is None:
            return None
        return word(claim, found if isinstance(found, str) else found.iloc[0])

    def table(self, name: str) -> pd.DataFrame:
        """One of `TABLES`.

        Raises:
            StudyError: it is not there, or not to be read.
        """
        path = self.folder / f"{name}.csv"
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise StudyError(f"{path}: cannot be read ({reason(error)}); expected a study's record") from error

    @property
    def computed(self) -> str:
        """When and on what the study was computed."""
        computed = self.environment["computed_by"]
        first, last, ways = computed["first"][:10], computed["last"][:10], computed["ways"]
        return f"{first if first == last else f'{first} to {last}'} on {_each(map(_machine, ways))}"

    def ensure_publishable(self, files: Iterable[str] = ()) -> None:
        """Raise where these files, or the description of the study or of its plan, name a path of this machine.

        Such are settings that are absolute, and any text below the home folder or the one that the process is in.

        Raises:
            StudyError: one does; the message says which.
        """
        plan = self.folder / FROZEN_PLAN
        for described in (self.study, *([_json(plan)["study"]] if plan.is_file() else [])):
            data = described["data"]
            named = {"model.id": described["model"]["id"], **{f"data.{key}": data.get(key) for key in DATA_FILES}}
            for key, value in named.items():
                if value and Path(value).expanduser().is_absolute():
                    raise StudyError(
                        f"{self.folder}: {key} is {shown(value)}, a path of this machine, which would be published; "
                        f"plan, run and report the study from the file's folder, with --set {key}={Path(value).name}"
                    )
        homes = {str(folder) for folder in (Path.home(), Path.cwd()) if len(folder.parts) > 1}
        below = re.compile("|".join(rf"(?<![\w.-]){re.escape(home)}(?![\w-])" for home in homes) or r"(?!)")
        for name in files:
            text = (self.folder / name).read_text(encoding="utf-8", errors="replace")
            if found := below.search(text):
                raise StudyError(
                    f"{self.folder / name}: names {found[0]}, a folder of this machine, which would be published; "
                    "report the study from there, its files named by paths that do not begin with it"
                )

    def facts(self) -> Iterator[tuple[str, str]]:
        """What a reader wants to know of the study first: a name, and the rest in words."""
        asked, computed = self.study, self.environment["computed_by"]
        data, training, runs = asked["data"], asked["training"], self.table("runs")
        ways = computed["ways"]
        yield "model", f"{asked['model']['id']}, {_each(map(_arithmetic, ways))}"
        yield "questions", f"{data['source']}: {data['train']} to train, {data['evaluation']} held out"
        yield "trait", _trait(asked["trait"])
        yield "runs", f"{len(runs)}, of {runs['condition'].nunique()} prompts and interventions"
        steps = _each(f"{each:g}" for each in sorted(runs["steps"].unique()))
        yield (
            "training",
            (
                f"LoRA of rank {training['lora_rank']}, {steps} steps of {training['batch_size']} examples, "
                f"learning rate {training['lr']:g}, {training['optimizer']}"
            ),
        )
        yield "computed", self.computed
        yield "code", _each(map(_code, ways))
        plan = self.environment.get("frozen_plan")
        yield (
            "plan",
            "none was frozen before"
            if plan is None
            else (
                f"frozen on {plan['date'][:10]} (SHA-256 {plan['digest'][:12]}). {plan['note']} "
                f"{'; '.join(plan['differences']) or 'The study is the one that was planned.'}"
            ),
        )


def publish(artifacts: Path, folder: Path, figures: Sequence[str]) -> Record:
    """Copy a study's record from its artifacts into `folder`, with these figures as pictures; other figures there go.

    A figure that the study does not have is left out. Of a study with interventions the tables that say what these were
    (`ARMED`) are there too.

    Raises:
        StudyError: a figure has another name, the artifacts lack a file that every report writes or name a path of this
            machine, or the folder holds something and is no record of this study.
        StoreError: the disk refuses.
    """
    if unknown := sorted(set(figures) - set(FIGURES)):
        raise StudyError(f"figures: no {unknown[0]}; expected some of {', '.join(FIGURES)}")
    armed = {name: artifacts / "tables" / f"{name}.parquet" for name in ARMED}
    for path in (*(artifacts / name for name in NEEDED), *armed.values()):
        if not path.is_file():
            raise StudyError(f"{path}: no such file; expected a study's artifacts, with a report")
    source, made = Record(artifacts), Record(folder)
    source.ensure_publishable(NEEDED)
    tables = {name: read_table(path) for name, path in armed.items()}
    if not is_record_of(source.name, folder):
        raise StudyError(f"{folder}: expected a new folder, or an earlier record of study {source.name}; name another")
    with disk_errors(folder, "out"):
        for name in NEEDED:
            write_atomically(folder / name, (artifacts / name).read_bytes())
        for name, table in tables.items():
            if len(table):
                write_table(table, folder / f"{name}.csv")
            else:
                (folder / f"{name}.csv").unlink(missing_ok=True)
        for name in FIGURES:
            picture = artifacts / "figures" / f"{name}.png"
            if name in figures and picture.is_file():
                write_atomically(made.picture(name), _smaller(picture))
            else:
                made.picture(name).unlink(missing_ok=True)
    made = Record(folder)
    write_json({name: source.figures[name] for name in made.figures}, folder / WORDS)
    return Record(folder)


def is_record_of(name: str, folder: Path) -> bool:
    """Whether a record of the study of that name may be put into `folder`: there is one, or nothing."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return not folder.exists() or folder.is_dir()
    report = folder / "report.html"  # of artifacts, and no record
    return (folder / DESCRIPTION).is_file() and not report.exists() and Record(folder).name == name


def _each(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _arithmetic(way: Mapping[str, Any]) -> str:
    return f"{str(way['dtype']).removeprefix('torch.')} on {way['device']}"


def _machine(way: Mapping[str, Any]) -> str:
    return str(way["accelerator"] or f"{way['processor']} ({way['cpu_capability']})")


def _code(way: Mapping[str, Any]) -> str:
    """A commit, or of code that git does not know the version."""
    if way["revision"] is None:
        return f"gradinoc {way['packages']['gradinoc']}"
    return f"{way['revision'][:12]}{' with changes' if way['dirty'] else ''}"


def _trait(given: str | Mapping[str, Any]) -> str:
    return str(given if isinstance(given, str) else given["name"]).replace("_", " ")


def _smaller(source: Path) -> bytes:
    """A picture in few colours, chosen so that none is far off: the usual choice spends them on what covers most."""
    content = io.BytesIO()
    with Image.open(source) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1)
    few.save(content, "PNG", optimize=True)
    return content.getvalue()


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({reason(error)}); expected a study's record") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path}: no object; expected a study's record")
    return content


def _finding(said: Mapping[str, Any]) -> Finding:
    names = {each.name for each in fields(Finding)} - {"effects", "criteria", "status"}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items() if name in names
    }
    effects = tuple(map(_effect, said["effects"]))
    return Finding(**given, status=Status(said["status"]), effects=effects)


def _read(row: Mapping[Hashable, Any]) -> Effect:
    """An effect as a row of `claims.csv` has it; in older ones p tests zero."""
    names = ("estimate", "low", "high", "p", "n", "unit", "method", "level", "key")
    given: dict[str, Any] = {name: row[name] for name in names} | {"n": int(row["n"])}
    return Effect(row["effect"], **given, against=row.get("against", 0.0))


def _effect(said: Mapping[str, Any]) -> Effect:
    given: dict[str, Any] = {name: math.nan if value is None else value for name, value in said.items()}
    return Effect(**given)
