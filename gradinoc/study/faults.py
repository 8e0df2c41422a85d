"""Say in one line what does not fit in a table of a study: key, what was expected, what was received."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gradinoc.errors import LONGEST, shown

MOST = 8  # faults that are named at once


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Every fault of a table that should be a `model`; the nearest key for one that is unknown."""
    faults = [_explain(item, model) for item in error.errors()]
    more = [f"and {len(faults) - MOST} more"] if len(faults) > MOST else []
    return "; ".join(faults[:MOST] + more)


def nearest(word: str, known: list[str]) -> str | None:
    """The one of `known` that `word` may be a slip of."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)


def _explain(item: Any, model: type[BaseModel]) -> str:
    location = [str(part)[:LONGEST] for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        *tables, last = location
        known = _keys(model, tables)
        near = nearest(last, known)
        hint = f"did you mean {'.'.join([*tables, near])!r}?" if near else f"known keys: {known}"
        return f"unknown key {shown(key)}: {hint}"
    if item["type"] == "value_error":
        return ": ".join(filter(None, (key, str(item["ctx"]["error"]))))
    if item["type"] == "missing":
        return f"{key}: missing; expected a value there"
    return f"{key}: {item['msg']} (received {shown(item['input'])})"


def _keys(model: Any, tables: list[str]) -> list[str]:
    """The keys of a table of `model`."""
    for table in tables:
        annotation = model.model_fields[table].annotation
        model = next(each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields"))
    return sorted(field.alias or name for name, field in model.model_fields.items())
