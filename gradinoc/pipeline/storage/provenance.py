"""What a result was made by: the version of the code that determines it, the machine, packages, data and weights."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import psutil

from gradinoc.data.sources import source_path
from gradinoc.disk import checksum
from gradinoc.study.description import Study

PROJECT = Path(__file__).resolve().parents[3]
PACKAGES = (
    "accelerate", "datasets", "filelock", "gguf", "gradinoc", "huggingface_hub", "jinja2", "matplotlib", "numpy",
    "pandas", "peft", "psutil", "py3langid", "pyarrow", "pydantic", "regex", "safetensors", "scipy", "statsmodels",
    "tokenizers", "torch", "transformers",
)  # fmt: skip
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NOTES, SELF_TESTS = "notes.json", "self_tests.json"  # in folders of steps that load the model
MACHINE = ("device", "dtype", "overrides", "kernels")  # inputs of a step that describe how its machine was used


def environment(
    study: Study | None = None,
    manifests: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    tried: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the provenance of this process without its host's name: reports are passed on.

    With a `study` also its data and weights with their checksums, every way in which the results of `manifests` were
    computed, `notes` on data and model, and the self-tests that the model was `tried` on.
    """
    machine = provenance()
    del machine["host"]
    if study is None:
        return machine
    inputs, data = manifests[0]["inputs"] if manifests else {}, study.data
    return {
        **machine,
        "data": {
            "source": data.source,
            "sha256": _file_checksum(data.source),
            "everyday": data.everyday,
            "everyday_sha256": _file_checksum(data.everyday),
            "trait_answers": data.trait_answers,
            "trait_answers_sha256": _file_checksum(data.trait_answers) if data.trait_answers else None,
            "splits": inputs.get("data"),  # of every question and answer in its place
        },
        "weights": {
            "model": study.model.id,
            "revision": study.model.revision,
            "fingerprint": inputs.get("model"),
        },
        "self_tests": dict(tried or {}),
        "computed_by": _computed_by(manifests),
        "notes": list(notes),
    }


def loading_notes(*folders: Path) -> list[str]:
    """Return the notes on loading the model from folders of steps, each once."""
    files = [folder / NOTES for folder in folders if (folder / NOTES).is_file()]
    return list(dict.fromkeys(str(note) for file in files for note in json.loads(file.read_text(encoding="utf-8"))))


def self_tests(*folders: Path) -> dict[str, str]:
    """Return the model's self-tests and their outcomes from folders of steps."""
    files = [folder / SELF_TESTS for folder in folders if (folder / SELF_TESTS).is_file()]
    return {name: outcome for file in files for name, outcome in json.loads(file.read_text(encoding="utf-8")).items()}


def _file_checksum(source: str) -> str | None:
    """Return the SHA-256 of a data source that is a file."""
    path = source_path(source)
    return checksum(path) if path is not None and path.is_file() else None


def _computed_by(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many results there are, from when, and each different way in which some of them were computed."""
    ways: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        made_by = {**manifest["provenance"], **{name: manifest["inputs"].get(name) for name in MACHINE}}
        made_by = {name: value for name, value in made_by.items() if name not in ("host", "created")}
        way = ways.setdefault(json.dumps(made_by, sort_keys=True), {"results": 0, **made_by})
        way["results"] += 1
    times = sorted(manifest["provenance"]["created"] for manifest in manifests)
    return {
        "results": len(manifests),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "ways": list(ways.values()),
    }


def provenance() -> dict[str, Any]:
    """Return time (UTC), host, platform, Python, package versions, git revision, hardware; None for what is unknown.

    `dirty` says whether tracked files differed from the revision, `threads` how many torch computes with.
    """
    import torch  # here: it takes two seconds, and versions can be asked for without it

    revision, changes, _ = (_revision() or "").partition("+")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": library_versions(*PACKAGES),
        "revision": revision or None,
        "dirty": bool(changes) if revision else None,
        "threads": torch.get_num_threads(),
        **hardware(),
    }


@lru_cache
def hardware() -> dict[str, Any]:
    """Return processor, cores, instruction set and memory, and the accelerator, if torch sees one."""
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "accelerator": None,
        "accelerator_memory_gb": None,
        "cuda": None,
        "driver": None,
    }
    if torch.cuda.is_available():
        driver = Path("/sys/module/nvidia/version")
        found["accelerator"] = torch.cuda.get_device_name()
        found["accelerator_memory_gb"] = round(torch.cuda.get_device_properties().total_memory / 1e9, 1)
        found["cuda"] = torch.version.cuda
        found["driver"] = driver.read_text(encoding="ascii").strip() if driver.is_file() else None
    elif torch.backends.mps.is_available():
        found["accelerator"] = "Apple MPS"
    return found


def _processor() -> str | None:
    """Return the processor's own name; `platform` knows only its architecture on Linux."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine() or None


@lru_cache
def code_version(*modules: str, without: tuple[str, ...] = (), root: Path = PROJECT) -> str:
    """Return the SHA-256, in hex, of the code of `modules` and all that they import from their package.

    Comments, docstrings and layout are left out: a changed computation changes it, a changed remark does not.
    `without` names modules that do not count; `root` is the folder that the package is in.

    Raises:
        FileNotFoundError: no such module; the message is the path that was tried.
    """
    sources: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in sources and name not in without:
            sources[name], imported = _read(_file(name, root).read_text(encoding="utf-8"), name.split(".")[0])
            waiting += [found for found in imported if _file(found, root).is_file()]
    return hashlib.sha256("".join(f"# {name}\n{sources[name]}\n" for name in sorted(sources)).encode()).hexdigest()


@cache
def _read(source: str, package: str) -> tuple[str, frozenset[str]]:
    """Return a module's code without remarks, and what of `package` it imports; the steps of a study share most."""
    tree = ast.parse(source)
    return _normalised(tree), frozenset(_imports(tree, package))


def _file(module: str, root: Path) -> Path:
    place = root.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _imports(tree: ast.Module, package: str) -> set[str]:
    """Return the modules of `package` that `tree` imports, at any depth, and names that may be functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith(f"{package}.")}


def _normalised(tree: ast.Module) -> str:
    """Return the code without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def library_versions(*packages: str) -> dict[str, str | None]:
    """Return the installed version of each package; None where it is not installed."""
    found: dict[str, str | None] = dict.fromkeys(packages)
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@lru_cache
def _revision() -> str | None:
    """Return the commit of the project's checkout, with "+changes" where files differ from it."""
    git = shutil.which("git")
    if git is None or not (PROJECT / ".git").exists():
        return None
    described = subprocess.run(  # noqa: S603  (our own command line)
        [git, "-C", str(PROJECT), "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip() or None
