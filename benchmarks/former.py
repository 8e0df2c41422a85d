"""The version of this project that studies are measured against: its files from git, in an environment of its own."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from benchmarks.environments import ENVIRONMENTS, NotInstalledError, environment
from benchmarks.workers import HERE

COMMIT = "d97e2e9798fee00085b67a0810dd1eaf1c6236de"  # of 24 November 2026
NAME = COMMIT[:7]
FILES, REQUIREMENTS = ENVIRONMENTS / f"{NAME}-files", ENVIRONMENTS / f"{NAME}.txt"


def former() -> tuple[Path, Path]:
    """The Python of the former version's environment, and the folder of its files; both are made if missing.

    The environment holds what its constraints.txt pins.

    Raises:
        NotInstalledError: this checkout has not its commit (a shallow clone), or pip cannot install a requirement.
    """
    if not (FILES / "constraints.txt").is_file():
        _take_out(FILES)
    pins = pinned((FILES / "constraints.txt").read_text(encoding="utf-8"))
    REQUIREMENTS.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    return environment(REQUIREMENTS, ENVIRONMENTS / NAME), FILES


def pinned(constraints: str) -> list[str]:
    """The requirements NAME==VERSION of a constraints file, without hashes: those of torch name no CPU-only build."""
    return [line.split()[0] for line in constraints.splitlines() if "==" in line and line[0] not in "# "]


def _take_out(folder: Path) -> None:
    """Put the commit's files into `folder`, whole or not at all."""
    done = subprocess.run(  # noqa: S603 - our own command line
        ["git", "-C", str(HERE.parent), "archive", COMMIT], capture_output=True, check=False,  # noqa: S607
    )  # fmt: skip
    if done.returncode:
        raise NotInstalledError(f"git has no commit {NAME}: {done.stderr.decode(errors='replace').strip()}")
    unpacked = folder.with_suffix(".part")
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(unpacked, filter="data")
    shutil.rmtree(folder, ignore_errors=True)
    unpacked.rename(folder)
