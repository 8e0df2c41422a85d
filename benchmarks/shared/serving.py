"""The worker's end of a benchmark: one JSON line a request on stdin, one JSON line an answer on stdout.

It imports nothing but the standard library, and torch once it is told how many threads to use: it runs in every
environment, this project's and the peers'.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Handler = Callable[..., Any]


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer requests `{"do": name, ...}` with `{"answer": ...}` or `{"error": ...}` until stdin ends.

    What libraries print goes to stderr: stdout is for answers alone. A handler gets the request's other keys as
    arguments. `repeat` is timed here, by the same clock for every side; a handler that times itself returns a
    number of seconds.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    _use_threads(int(os.environ["OMP_NUM_THREADS"]))
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        try:
            answer = {"answer": _timed(handlers[name], request) if name == "repeat" else handlers[name](**request)}
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def _timed(work: Handler, request: Mapping[str, Any]) -> float:
    gc.collect()  # of the last repetition's remains, so that this one does not pay for them
    began = time.perf_counter()
    own = work(**request)
    return time.perf_counter() - began if own is None else float(own)


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def peak_memory() -> int:
    """Largest resident set of this process so far, bytes; where there is a CUDA device, what was allocated there.

    Linux tells it for the program that runs now; getrusage also counts what the process held before it became this
    program, which is a copy of its parent.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
