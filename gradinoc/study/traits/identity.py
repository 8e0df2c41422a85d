"""What a trait written in Python is known again by: its texts, and the source of all that its functions rest on."""

from __future__ import annotations

import builtins
import dataclasses
import dis
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradinoc.errors import StudyError, shown
from gradinoc.study.traits.trait import Trait

CONSTANTS = (str, bytes, int, float, complex, bool, type(None), types.EllipsisType)
FUNCTIONS = ("transform", "score", "scorable")
HOME = __name__.partition(".")[0]  # this package, whose code is in every key already


def identity_of(trait: Trait) -> str:
    """SHA-256, in hex, of the trait's texts and its functions' source, with the functions and constants they use.

    What a function uses of another module counts by that module's file. A change there is seen; one in a module that
    this module uses in turn is not.

    Raises:
        StudyError: a function that closes over variables, that has no source, or that uses a global which is not there
            yet, or neither a constant, a function, a class nor a module: two that compute different things might be
            taken for one.
    """
    digest = hashlib.sha256()
    for field in dataclasses.fields(trait):
        if field.name not in (*FUNCTIONS, "identity"):
            digest.update(f"{field.name}: {getattr(trait, field.name)!r}\n".encode())
    for name in FUNCTIONS:
        look = _Look(f"trait {trait.name}: {name}", set())
        for part in look.of(getattr(trait, name)):
            digest.update(f"{name}: {part}\n".encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class _Look:
    """A walk through what a function rests on; `place` names the function, `seen` holds the functions met."""

    place: str
    seen: set[types.FunctionType]

    def of(self, value: Any) -> Iterator[str]:
        """The parts of `value` that decide what it does, as text."""
        if isinstance(value, CONSTANTS):
            yield repr(value)
        elif isinstance(value, re.Pattern):
            yield f"pattern {value.pattern!r} {value.flags}"
        elif isinstance(value, tuple | list | set | frozenset | dict):
            yield from self._collection(value)
        elif isinstance(value, types.ModuleType):
            yield _module(value.__name__)
        elif isinstance(value, types.FunctionType):
            if value not in self.seen:
                self.seen.add(value)
                yield from self._function(value)
        else:
            yield self._named(value)

    def _collection(self, value: Any) -> Iterator[str]:
        items = list(value.items()) if isinstance(value, dict) else list(value)
        parts = [" ".join(self.of(item)) for item in items]
        yield f"{type(value).__name__} {sorted(parts) if isinstance(value, set | frozenset) else parts}"

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        if function.__closure__:
            raise self._refused(f"closes over {list(function.__code__.co_freevars)}", "write it as a plain function")
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError) as error:
            raise self._refused("has no source that could be read", "write it into a file") from error
        yield f"{function.__qualname__} {source}"
        yield from self.of((function.__defaults__, function.__kwdefaults__))
        for name, imported in sorted(set(_names(function.__code__))):
            yield name
            if imported and name not in sys.modules:
                raise self._refused(f"imports {name!r} only when called", "import it at the top of its module")
            if imported:
                yield _module(name)
            elif isinstance(used := function.__globals__.get(name), types.ModuleType):
                yield from _modules(used, function.__code__)
            elif name in function.__globals__:
                yield from self._used(function.__globals__[name], function.__module__)
            elif not hasattr(builtins, name):
                raise self._refused(f"uses {name!r}, which is not there yet", "register the trait after it")

    def _used(self, value: Any, module: str) -> Iterator[str]:
        """A global that a function of `module` uses; functions of other modules count by those modules' files."""
        if isinstance(value, types.FunctionType) and value.__module__ != module and not value.__closure__:
            yield f"{_module(value.__module__)} {value.__qualname__}"
        else:
            yield from self.of(value)

    def _named(self, value: Any) -> str:
        """A class, builtin or method of one, by its name and its module's file."""
        named = isinstance(value, type | types.BuiltinFunctionType | types.MethodDescriptorType)
        if not named:
            raise self._refused(
                f"rests on {shown(value)}, a {type(value).__name__}", "use plain functions and constants"
            )
        owner = getattr(value, "__objclass__", value)
        if owner.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
            raise self._refused(f"rests on {value.__qualname__}, a class without a file", "write it into a file")
        return f"{_module(str(owner.__module__))} {value.__qualname__}"

    def _refused(self, fault: str, what_to_do: str) -> StudyError:
        return StudyError(
            f"{self.place}: {fault}; expected a function whose source says all that it does, since stored results are "
            f"known again by it; {what_to_do}"
        )


def _names(code: types.CodeType) -> Iterator[tuple[str, bool]]:
    """Names of the globals that `code` uses and of the modules that it imports (True), nested functions' included."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"):
            yield str(step.argval), step.opname == "IMPORT_NAME"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _modules(module: types.ModuleType, code: types.CodeType) -> Iterator[str]:
    """A module that `code` uses, and those of its package that it reaches through it, as in `package.part.f()`."""
    yield _module(module.__name__)
    for name in sorted(set(_attributes(code))):
        below = getattr(module, name, None)
        if isinstance(below, types.ModuleType) and below.__name__ == f"{module.__name__}.{name}":
            yield from _modules(below, code)


def _attributes(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attributes(constant)


def _module(name: str) -> str:
    """A module's name, with a digest of its file if it has one that is not this package's."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if name.partition(".")[0] == HOME or file is None or not file.endswith(".py"):
        return f"module {name}"
    return f"module {name} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
