"""A trait as a description: TOML in a file of its own or in a study's, a small vocabulary, and no code."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradinoc.disk import as_typed, is_address
from gradinoc.errors import StudyError, reason, shown
from gradinoc.study.traits.language import known_languages
from gradinoc.study.traits.shipped import SHIPPED
from gradinoc.study.traits.trait import Trait
from gradinoc.study.traits.vocabulary import SCORES, TRANSFORMS, Language, TraitDescription, scorable, score, transform

__all__ = ["TraitDescription", "describe", "load_trait", "read_description", "trait_of"]

FAULTS = 4  # faults that are named at once


def load_trait(path: str | Path) -> Trait:
    """The trait that the TOML file `path` describes; a table `[trait]` in it, or the file as a whole.

    Raises:
        StudyError: no such file, not TOML, or a key or value that does not fit.
    """
    return trait_of(describe(read_description(Path(path)), str(path)))


def read_description(path: Path) -> dict[str, Any]:
    """What the TOML file `path` says of a trait.

    Raises:
        StudyError: no such file, or not TOML.
    """
    place = as_typed(path)
    if is_address(place):
        raise StudyError(f"{place}: an address, from which nothing is fetched; download the file, and give its path")
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a name is too long
        raise StudyError(f"{place}: no such file; expected a TOML file that describes a trait; give its path as trait")
    try:
        found = tomllib.loads(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{place}: not a TOML file: {reason(error)}; mend it there") from error
    except OSError as error:
        raise StudyError(f"{place}: cannot be read ({reason(error)}); mend the file or give another") from error
    table = found.get("trait", found)
    return table if isinstance(table, dict) else found


def describe(table: dict[str, Any], place: str = "trait") -> TraitDescription:
    """The checked description of a trait, of a table as TOML or JSON gives it; `place` begins each message.

    Raises:
        StudyError: a key or value that does not fit, one line for all; a typo in a key names the nearest key.
    """
    try:
        description = TraitDescription.model_validate(table)
    except ValidationError as error:
        items = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
        faults = [_explain(item) for item in items]
        more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
        raise StudyError(f"{place}: " + "; ".join(faults[:FAULTS] + more)) from error
    if description.name in {trait.name for trait in SHIPPED}:
        raise StudyError(f"{place}: name: {description.name!r} is a trait that comes with the project; rename yours")
    if isinstance(description.score, Language) and description.score.language not in known_languages():
        raise StudyError(
            f"{place}: score.language: {shown(description.score.language)} cannot be identified; expected the ISO 639 "
            f"code of one of the {len(known_languages())} languages that py3langid knows, such as de, es or fr"
        )
    trait_of(description)
    return description


@lru_cache
def trait_of(description: TraitDescription) -> Trait:
    """The trait that is described; its identity is its whole description.

    Raises:
        StudyError: names or prompts that cannot be used.
    """
    steps = description.steps
    return Trait(
        name=description.name,
        title=description.title,
        promote_system=description.promote,
        suppress_system=description.suppress,
        inoculation_system=description.inoculation,
        transform=partial(transform, steps) if steps else None,
        score=partial(score, description.score),
        scorable=partial(scorable, description.score),
        score_name=description.score_name or f"{description.title} rate"[:40],
        needs=description.score.needs,
        related=description.related,
        libraries=("regex", "py3langid"),
        identity=json.dumps(description.model_dump(mode="json"), sort_keys=True),
    )


def _explain(item: Any) -> str:
    """One validation error in words, the key first."""
    location = _keys_to(item["loc"])
    key, received = ".".join(map(str, location)), shown(item["input"])
    if item["type"] == "extra_forbidden":
        known = _known(item["loc"])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {known}"
        return f"unknown key {shown(key)}: {hint}"
    if item["type"].startswith("union_tag"):
        kinds = list(TRANSFORMS if location[0] == "transform" else SCORES)
        given = item["input"].get("kind") if isinstance(item["input"], dict) else item["input"]
        near = difflib.get_close_matches(str(given), kinds, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{key}: expected a table with a kind of {', '.join(kinds)}, received {shown(given)}{hint}"
    if item["type"] == "model_attributes_type" or item["type"] == "model_type":
        return f'{key}: expected a table with a kind, such as {{kind = "upper"}}, received {received}'
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}"
    if item["type"] == "missing":
        return f"{key}: missing; expected a value there"
    return f"{key}: {item['msg']} (received {received})"


def _keys_to(location: tuple[int | str, ...]) -> list[str]:
    """The keys that lead to a fault, without what tells the forms of a table apart."""
    first, *rest = (str(part) for part in location) if location else ("trait",)
    return [first, *(part for part in rest if part not in ("one", "several", *TRANSFORMS, *SCORES))]


def _known(location: tuple[int | str, ...]) -> list[str]:
    """The keys that a table may have at the place of an unknown one."""
    for part in reversed(location[:-1]):
        form = {**TRANSFORMS, **SCORES}.get(str(part))
        if form is not None:
            return sorted(field.alias or name for name, field in form.model_fields.items())
    return sorted(TraitDescription.model_fields)
