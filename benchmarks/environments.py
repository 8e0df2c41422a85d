"""An environment of its own for each peer, made from its pinned requirements when missing or when they changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.workers import HERE, Side

ENVIRONMENTS = HERE / ".envs"
PEERS = HERE / "peers"
CONSTRAINTS = HERE.parent / "constraints.txt"
STAMP = "requirements.sha256"


class NotInstalledError(RuntimeError):
    """A peer whose environment cannot be made; the message is the reason."""


def peer(name: str) -> Side:
    """The side that runs the library `name`, its environment ready.

    Raises:
        NotInstalledError: the environment cannot be made.
    """
    return Side(name, PEERS / f"{name}.py", environment(PEERS / f"{name}.txt", ENVIRONMENTS / name))


def environment(requirements: Path, folder: Path) -> Path:
    """The Python of an environment in `folder` that holds exactly what the file `requirements` pins.

    pip is also given this project's own pin of torch, and refuses a peer whose file says another: every side is to
    compute with the same torch. Which build of it, for the CPU alone or for CUDA, depends on where pip looks.

    The digest of the file is written last: an environment that was interrupted is made again.

    Raises:
        NotInstalledError: it cannot be made.
    """
    python, stamp = folder / "bin" / "python", folder / STAMP
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.is_file() and stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, torch_pin(), "-r", str(requirements)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise NotInstalledError(lines[-1].strip() if lines else f"pip ended with {done.returncode}")
    stamp.write_text(digest, encoding="ascii")
    return python


def torch_pin() -> str:
    """The requirement `torch==...` of this project.

    Raises:
        ValueError: its constraints name none.
    """
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("torch=="):
            return line.split()[0]  # what follows are the hashes of its files
    raise ValueError(f"Expected a line torch==... in {CONSTRAINTS}")
