"""What a result was made by: the version of the code that determines it, and where it was run."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "accelerate", "datasets", "filelock", "gguf", "gradinoc", "huggingface_hub", "jinja2", "matplotlib", "numpy",
    "pandas", "peft", "psutil", "py3langid", "pyarrow", "pydantic", "regex", "safetensors", "scipy", "statsmodels",
    "tokenizers", "torch", "transformers",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Time (UTC), host, platform, Python, package versions, git revision, hardware; None for what is not known.

    `dirty` says whether tracked files differed from the revision, `threads` how many torch computes with.
    """
    import torch  # here, since its two seconds are too long for whoever wants a version only

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
    """Processor, its cores, what torch uses of it and its memory, and the accelerator, if torch sees one."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **_accelerator(),
    }


def _processor() -> str | None:
    """The processor as it calls itself; `platform` knows only its architecture on Linux."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine() or None


def _accelerator() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"accelerator": None, "accelerator_memory_gb": None, "cuda": None, "driver": None}
    if torch.cuda.is_available():
        driver = Path("/sys/module/nvidia/version")
        found["accelerator"] = torch.cuda.get_device_name()
        found["accelerator_memory_gb"] = round(torch.cuda.get_device_properties().total_memory / 1e9, 1)
        found["cuda"] = torch.version.cuda
        found["driver"] = driver.read_text(encoding="ascii").strip() if driver.is_file() else None
    elif torch.backends.mps.is_available():
        found["accelerator"] = "Apple MPS"
    return found


@lru_cache
def code_version(*modules: str, without: tuple[str, ...] = (), root: Path = PROJECT) -> str:
    """SHA-256, in hex, of the code of `modules` ("gradinoc.measure.drift") and all they import from its package.

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
            tree = ast.parse(_file(name, root).read_text(encoding="utf-8"))
            waiting += [found for found in _imports(tree, name.split(".")[0]) if _file(found, root).is_file()]
            sources[name] = _normalised(tree)
    return hashlib.sha256("".join(f"# {name}\n{sources[name]}\n" for name in sorted(sources)).encode()).hexdigest()


def _file(module: str, root: Path) -> Path:
    place = root.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _imports(tree: ast.Module, package: str) -> set[str]:
    """Modules of `package` that `tree` imports, at any depth; with them, names that may be functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith(f"{package}.")}


def _normalised(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def library_versions(*packages: str) -> dict[str, str | None]:
    """Installed version of each package; None where it is not installed."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@lru_cache
def _revision() -> str | None:
    """The commit of the project's checkout, with "+changes" where files differ from it."""
    git = shutil.which("git")
    if git is None or not (PROJECT / ".git").exists():
        return None
    described = subprocess.run(  # noqa: S603  (our own command line)
        [git, "-C", str(PROJECT), "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip() or None
