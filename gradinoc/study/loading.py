"""Read a study: its file, `key=value` settings, and a name of its own for what was changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradinoc.errors import StudyError, reason, shown
from gradinoc.study.chat_template import FILE, read_template
from gradinoc.study.description import LONGEST_NAME, Study
from gradinoc.study.faults import explain
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.settings import DATA_FILES
from gradinoc.study.traits.described import read_description, read_toml

STUDIES = Path(__file__).parent / "ready"
FILES = (".toml", ".json")  # of studies
PLAN_KIND = "gradinoc frozen plan"  # what the JSON file of one says it is
LONGEST_VALUE = 24  # characters of a setting's value that go into a study's name
# Settings under which a ready study is still the one that was published.
AS_PUBLISHED = {
    "name", "model.device", "model.device_map", "model.dtype", "model.threads", "model.kernels", "engine", "published",
}  # fmt: skip
PATHS = (*(f"data.{name}" for name in DATA_FILES), "model.chat_template", "trait")  # settings that may be paths


def load_study(source: str, settings: tuple[str, ...] | list[str] = ()) -> Study:
    """The study called `source` (a ready study's name, or a file's path) with `key=value` settings applied.

    The file is TOML, or JSON: a plan that was frozen, or what a report says of its study. A setting's key is dotted
    (`data.source`), its value is read as TOML where that is possible, else as a string. Settings that leave `name`
    alone are added to it, so that artifacts do not take the place of the plain study's. What was published of a ready
    study is not said of one that settings have made another. Another `trait` has the prompts of its own families, all
    of them and the standard ones trained, unless settings name them.

    Raises:
        StudyError: no such study, not TOML or JSON, or a key or value that does not fit; a typo in a key names the
            nearest key.
    """
    path = Path(source) if source.endswith(FILES) else STUDIES / f"{source}.toml"
    description = _read(path, source)
    description.setdefault("name", path.stem)
    if any(setting.startswith("conditions.") for setting in settings):  # a table, if given, replaces the default one
        description.setdefault("conditions", dict(CONDITIONS))
    if any(setting.startswith("trait=") for setting in settings):  # whose families have keys of their own
        description.pop("prompts", None)
    changed = dict(setting.partition("=")[::2] for setting in settings)
    if not {key if key in AS_PUBLISHED else key.partition(".")[0] for key in changed} <= AS_PUBLISHED:
        description.pop("published", None)
    for setting in settings:
        _apply(description, setting)
    _describe_trait(description, path.parent)
    _read_template(description, path.parent)
    try:
        study = Study.model_validate(description)
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Study)}") from error
    if "name" in changed:
        return study
    name = study.name + "".join(_suffix(*item) for item in changed.items())
    return study.model_copy(update={"name": name if len(name) <= LONGEST_NAME else _shortened(name, name)})


def is_frozen_plan(source: str) -> bool:
    """Whether `source`, as `load_study` takes it, is the file of a plan that was frozen."""
    path = Path(source)
    return path.suffix == ".json" and path.is_file() and _json(path).get("kind") == PLAN_KIND


def _read(path: Path, source: str) -> dict[str, Any]:
    """The tables of a study file."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a name is too long
        ready = sorted(file.stem for file in STUDIES.glob("*.toml"))
        raise StudyError(f"No study {shown(source)}: expected one of {ready}, or the path of a .toml or .json file")
    if path.suffix == ".toml":
        return read_toml(path)
    content = _json(path)
    if content.get("kind") != PLAN_KIND:
        return content
    if not isinstance(content.get("study"), dict):
        raise StudyError(f"{path}: a frozen plan without a study; take the file that was frozen")
    return dict(content["study"])


def _json(path: Path) -> dict[str, Any]:
    """An object of JSON."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not a JSON file: {reason(error)}; mend it there") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path}: no study; expected a frozen plan, or a report's study.json")
    return content


def _describe_trait(description: dict[str, Any], folder: Path) -> None:
    """Put what a trait's file says in the place of its path: a study's description needs no other file.

    The path is looked for in the study file's folder first, then in the working directory.
    """
    given = description.get("trait")
    if isinstance(given, str) and given.endswith(".toml"):
        beside = folder / given
        path = beside if os.path.isfile(beside) else Path(given)  # noqa: PTH113 - as above
        description["trait"] = read_description(path)


def _read_template(description: dict[str, Any], folder: Path) -> None:
    """Put what a chat template's file says in the place of its path, as with a trait's file."""
    model = description.get("model")
    given = model.get("chat_template") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(given, str) and given.endswith(FILE):
        try:
            model["chat_template"] = read_template(given, folder)
        except ValueError as error:
            raise StudyError(f"model.chat_template: {error}") from error


def _shortened(text: str, whole: str) -> str:
    """The beginning of `text`, and a digest of `whole` by which it is told from others that begin alike."""
    return f"{text[:LONGEST_VALUE]}-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _suffix(key: str, text: str) -> str:
    """What a setting adds to a study's name: `training.steps=20` adds -steps20, `data.source=my/gsm8k.jsonl` -gsm8k."""
    text = text.strip().strip("\"'")
    shown = Path(text).stem if key in PATHS else text
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", shown).strip("_")
    if len(plain) > LONGEST_VALUE:  # a system prompt would be too long for a folder's name
        plain = _shortened(plain, text)
    last = key.rpartition(".")[2].replace(" ", "_")  # a condition's name may hold blanks, a study's may not
    return f"-{plain}" if key == "data.source" else f"-{last}{plain}"


def _apply(description: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise StudyError(f"Setting {shown(setting)}: expected key=value, for instance training.steps=20")
    *tables, last = key.split(".")
    for table in tables:
        description = description.setdefault(table, {})
        if not isinstance(description, dict):
            raise StudyError(f"Setting {shown(setting)}: {shown(table)} is a value, not a table; expected key=value")
    description[last] = _value(text)


def _value(text: str) -> Any:
    """`text` read as the value of a TOML key, or as it stands where it is none, or more than one."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text
