"""Errors that a user can mend, and safe printing of untrusted text.

Every error a user can mend derives from `GradinocError`, which escapes its message: raise it with the text as it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

LONGEST = 80  # characters of a value

_quote = reprlib.Repr()
_quote.maxstring = _quote.maxother = _quote.maxlong = LONGEST
_quote.maxlevel = 3


def shown(value: object) -> str:
    """`repr` of `value`, cut in the middle if it is long."""
    try:
        text = _quote.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a value of type {type(value).__name__}, too long to be shown"
    return text if len(text) <= 4 * LONGEST else f"{text[: 2 * LONGEST]}...{text[-LONGEST:]}"


def quoted(text: str) -> str:
    """`repr` of a path or address, uncut up to the length of a line or two."""
    return repr(text) if len(text) <= 4 * LONGEST and text.isprintable() else shown(text)


def printable(text: object) -> str:
    """Make untrusted text safe to print: one line, every control character escaped."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(text))


def reason(error: BaseException) -> str:
    """The kind and message of a library's error on one line, escaped and cut where long."""
    words = printable(" ".join(str(error).split()))
    if len(words) > 4 * LONGEST:
        words = f"{words[: 4 * LONGEST]}..."
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class GradinocError(Exception):
    """An error that the user can mend. The message is one line: what, where, what was expected, what to do.

    Command line and tests print the message alone; any other exception is a fault of this package, with a traceback.
    """

    def __str__(self) -> str:
        """The message, escaped."""
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
    """Results cannot be read from or written to a folder; what was finished is intact."""


class EngineError(GradinocError, RuntimeError):
    """A cluster, or a worker of it, cannot do what was asked of it."""


class LostWorkerError(EngineError):
    """Workers died of a step, one after the other; other steps go on."""


class NumericalError(GradinocError, ArithmeticError):
    """A loss, gradient, activation or weight that is not finite; the message names step, layer and examples."""


class OutOfMemoryError(GradinocError, MemoryError):
    """A step needs more memory than the device has; the message says what would fit."""


def in_step(error: Exception, label: str, others: Sequence[str]) -> Exception:
    """Return `error` as that of the step called `label`, with the `others` that failed as well; to be raised."""
    also = f" (failed as well: {', '.join(others)})" if others else ""
    if not isinstance(error, GradinocError):
        error.__notes__ = [f"in the step {label!r}{also}"]
        return error
    named = type(error)(f"{label}: {error}{also}")
    named.__cause__ = error
    return named
