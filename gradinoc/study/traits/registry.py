"""Traits by name: those that come with the project, and those that a module of the user's registers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradinoc.errors import StudyError, shown
from gradinoc.study.faults import nearest
from gradinoc.study.traits.described import describe, trait_of
from gradinoc.study.traits.shipped import SHIPPED
from gradinoc.study.traits.trait import Trait
from gradinoc.study.traits.vocabulary import TraitDescription

FUNCTIONS = ("transform", "score", "scorable")
TRAITS = {trait.name: trait for trait in SHIPPED}


def register_trait(trait: Trait) -> Trait:
    """Let studies of this process find `trait` by its name; it replaces a registered trait of that name.

    A study file never runs code; this is the way for a trait that only code can transform or score. Put it into a
    module and give that to pytest (`python -m pytest -p my_trait`), which imports it in every worker. Stored results
    are known by the trait's texts and the files of the modules in which its functions stand: what those import is not
    looked at.

    Raises:
        StudyError: the name is one of the project's own, or a function is none of a module's.
    """
    if trait.name in {shipped.name for shipped in SHIPPED}:
        raise StudyError(f"trait {shown(trait.name)}: a trait of that name comes with the project; rename yours")
    known = dataclasses.replace(trait, identity=_identity(trait))
    TRAITS[trait.name] = known
    return known


def find_trait(trait: str | TraitDescription) -> Trait:
    """The trait called `trait`, or the one that is described.

    Raises:
        KeyError: no such trait; the message lists those there are.
    """
    if isinstance(trait, TraitDescription):
        return trait_of(trait)
    if trait not in TRAITS:
        raise KeyError(f"No trait named {trait!r}; there are {sorted(TRAITS)}")
    return TRAITS[trait]


def checked_trait(value: Any) -> str | TraitDescription:
    """A trait's name, if there is such a trait, or the checked description of one.

    Raises:
        ValueError: no such trait, or a description that does not fit.
    """
    if isinstance(value, TraitDescription):
        return value
    if isinstance(value, dict):
        return describe(value)
    if not isinstance(value, str) or value not in TRAITS:
        near = nearest(str(value), [*TRAITS])
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(
            f"no trait named {shown(value)}; there are {sorted(TRAITS)}{hint}; one of your own is a TOML file, a table "
            "[trait], or a Trait that a module registers (python -m pytest -p MODULE)"
        )
    return value


def _identity(trait: Trait) -> str:
    """SHA-256, in hex, of the trait's texts and of the module files in which its functions stand."""
    values = {field.name: getattr(trait, field.name) for field in dataclasses.fields(trait) if field.name != "identity"}
    for name in FUNCTIONS:
        if values[name] is not None:
            values[name] = _file_and_name(values[name], f"trait {trait.name}: {name}")
    if prompts := values.pop("prompts").given:
        values["prompts"] = prompts
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _file_and_name(function: Callable[[str], Any], place: str) -> tuple[str, str]:
    """SHA-256 of the file of a function's module (empty for Python's own types), and the function's name in it."""
    file = getattr(sys.modules.get(getattr(function, "__module__", None) or ""), "__file__", None)
    name = getattr(function, "__qualname__", None)
    hides = isinstance(function, types.MethodType) or getattr(function, "__closure__", None)
    if name is None or hides or (file is None and isinstance(function, types.FunctionType)):
        raise StudyError(
            f"{place}: {shown(function)}; expected a function in a module's file, since stored results are known by "
            "that file, without closure, partial or object; write a plain function into a file"
        )
    return (hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""), name
