"""What can go wrong in ways that whoever runs a study can mend: one base class, one line each."""

from __future__ import annotations

from gradinoc.quoting import printable


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
