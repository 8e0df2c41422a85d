"""Errors that a user can mend, and safe printing of untrusted text.

Every error a user can mend derives from `GradinocError`; its message is one line and safe to print in a terminal.
"""

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


class GradinocError(Exception):
    """Something to mend outside this code. The message is one line: what, where, what was expected, what to do.

    Command line and tests show the message alone; everything else that is raised is a fault of ours, and shows where.
    """

    def __str__(self) -> str:
        """The message on one line, nothing in it that a terminal would act on."""
        return printable(super().__str__())


class StudyError(GradinocError, ValueError):
    """A study file or setting that cannot be used."""


class DataError(GradinocError, ValueError):
    """A data set that cannot be used; the message names file and line."""


class ModelError(GradinocError, RuntimeError):
    """A model that cannot be found, loaded or trusted, or that does not fit the study."""


class DeviceError(GradinocError, ValueError):
    """A device or dtype that this machine does not have; the message lists those it has."""


class StoreError(GradinocError, OSError):
    """A place on disk that results cannot be read from or written to; what was finished is intact."""


class NumericalError(GradinocError, ArithmeticError):
    """A loss, gradient, activation or weight that is not finite; the message names step, layer and examples."""


class OutOfMemoryError(GradinocError, MemoryError):
    """A step that the device has not the memory for; the message says what would fit."""
