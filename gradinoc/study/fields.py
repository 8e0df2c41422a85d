"""Types of a study's fields: strict, bounded, readable by files and tokenizers."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gradinoc.errors import shown

MANY = 1_000_000_000  # more of anything than a study could use
SEEDS = (1 << 32) - 1  # the largest that every generator takes
LONGEST_PROMPT = 2_000  # characters of a system prompt


class Section(BaseModel):
    """A table of a study file: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def readable(text: str) -> str:
    """`text`, if files and tokenizers can hold it."""
    if re.search("[\0\ud800-\udfff]", text):
        raise ValueError(f"expected text without NUL and without halves of surrogate pairs, received {shown(text)}")
    return text


def whole(least: int, most: int = MANY) -> Any:
    """Field of a whole number from `least` to `most`."""
    return Field(strict=True, ge=least, le=most)


# Strict: a number in quotes, or true in a number's place, is a slip.
Text = Annotated[str, AfterValidator(readable)]
PromptText = Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT), AfterValidator(readable)]
Name = Annotated[str, Field(min_length=1), AfterValidator(readable)]  # of a file, folder or repository
Switch = Annotated[bool, Field(strict=True)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Seed = Annotated[int, whole(0, SEEDS)]
Count = Annotated[int, whole(1)]
CountOrNone = Annotated[int, whole(0)]
# A condition's name goes into labels, tables and the names of files.
Condition = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,38}[A-Za-z0-9])?$")]
