"""Where and with what a study was run."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gradinoc.provenance import provenance


def environment() -> dict[str, Any]:
    """Time, platform, processor, accelerator, Python, package versions and git revision ("+changes" where it differs).

    What cannot be found out is None. The host's name is left out: a report is to be passed on.
    """
    known = provenance()
    known.pop("host")
    return {**known, "processor": _processor(), "cores": os.cpu_count(), "accelerator": _accelerator()}


def _processor() -> str | None:
    """The processor as it calls itself; `platform` knows only its architecture on Linux."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine() or None


def _accelerator() -> str | None:
    if find_spec("torch") is None:
        return None
    import torch  # here, since everything else in a report does without its two seconds

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple MPS" if torch.backends.mps.is_available() else None
