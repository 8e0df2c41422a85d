"""A trait described in TOML, in a file of its own or in a study's: a small vocabulary, and no code."""

from __future__ import annotations

import json
import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradinoc.disk import as_typed, is_address
from gradinoc.errors import StudyError, reason
from gradinoc.study.faults import explain
from gradinoc.study.traits.prompts import TraitPrompts
from gradinoc.study.traits.shipped import SHIPPED
from gradinoc.study.traits.trait import LONGEST_TITLE, Trait
from gradinoc.study.traits.vocabulary import TraitDescription


def load_trait(path: str | Path) -> Trait:
    """The trait that the TOML file `path` describes; a table `[trait]` in it, or the file as a whole.

    Raises:
        StudyError: no such file, not TOML, or a key or value that does not fit.
    """
    return trait_of(read_description(Path(path)))


def read_description(path: Path) -> TraitDescription:
    """The description in the TOML file `path`.

    Raises:
        StudyError: no such file, not TOML, or a key or value that does not fit.
    """
    place = as_typed(path)
    if is_address(place):
        raise StudyError(f"{place}: an address, from which nothing is fetched; download the file, and give its path")
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a name is too long
        raise StudyError(f"{place}: no such file; expected a TOML file that describes a trait; give its path as trait")
    found = read_toml(path)
    table = found.get("trait", found)
    try:
        return describe(table if isinstance(table, dict) else found)
    except StudyError as error:
        raise StudyError(f"{place}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, which may begin with a byte order mark.

    Raises:
        StudyError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # the syntax, the encoding, a number of thousands of digits, nesting
        raise StudyError(f"{path}: not a TOML file: {reason(error)}; mend it there") from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({reason(error)}); mend the file or give another") from error


def describe(table: dict[str, Any]) -> TraitDescription:
    """The checked description of a trait in a table of TOML or JSON.

    Raises:
        StudyError: a key or value that does not fit.
    """
    try:
        description = TraitDescription.model_validate(table)
    except ValidationError as error:
        raise StudyError(explain(error, TraitDescription)) from error
    if description.name in {trait.name for trait in SHIPPED}:
        raise StudyError(f"name: {description.name!r} is a trait that comes with the project; rename yours")
    trait_of(description)
    return description


@lru_cache
def trait_of(description: TraitDescription) -> Trait:
    """The trait that is described; its identity is its whole description.

    Raises:
        StudyError: names or prompts that cannot be used.
    """
    return Trait(
        name=description.name,
        title=description.title,
        promote_system=description.promote,
        suppress_system=description.suppress,
        inoculation_system=description.inoculation,
        transform=description.transform,
        score=description.score,
        scorable=description.score.scorable,
        score_name=description.score_name or f"{description.title} rate"[:LONGEST_TITLE],
        needs=description.score.needs,
        related=description.related,
        libraries=("regex", "py3langid"),
        identity=json.dumps(_given(description), sort_keys=True),
        prompts=description.prompts or TraitPrompts(),
    )


def _given(description: TraitDescription) -> dict[str, Any]:
    """What is described, without keys that are left out: those that a later version knows change no stored key."""
    given = description.model_dump(mode="json", exclude_none=True)
    return {**given, "prompts": description.prompts.given} if description.prompts else given
