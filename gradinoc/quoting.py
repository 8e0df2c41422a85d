"""What came from outside, as a message shows it: on one line, nothing that a terminal would act on, cut where long."""

from __future__ import annotations

import reprlib

LONGEST = 80  # characters of a value

_quote = reprlib.Repr()
_quote.maxstring = _quote.maxother = _quote.maxlong = LONGEST
_quote.maxlevel = 3


def shown(value: object) -> str:
    """`value` as Python writes it, cut in the middle if it is long; line ends, escapes and the like are spelled out."""
    try:
        text = _quote.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a value of type {type(value).__name__}, too long to be shown"
    return text if len(text) <= 4 * LONGEST else f"{text[: 2 * LONGEST]}...{text[-LONGEST:]}"


def quoted(text: str) -> str:
    """`text` as Python writes it, whole up to the length of a line or two: a path or address is of no use cut."""
    return repr(text) if len(text) <= 4 * LONGEST and text.isprintable() else shown(text)


def printable(text: object) -> str:
    """`text` with every character that is no sign to be seen spelled out: a file's name may hold anything."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(text))


def reason(error: BaseException) -> str:
    """What a library says was wrong, on one line, the kind of the error first."""
    said = printable(" ".join(str(error).split()))
    if len(said) > 4 * LONGEST:
        said = f"{said[: 4 * LONGEST]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
