"""What the library warns of while it works reaches whoever watches: pytest shows no log of a test that passes."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from fixtures.progress import Mailbox
from fixtures.small_study import SMALLEST, as_options
from gradinoc.pipeline.screen import Screen
from gradinoc.pipeline.watching import Aloud, Watch

ROOT = Path(__file__).parents[2]


def test_warning_of_a_worker_is_a_line_of_the_controller(tmp_path):
    """In one line, nothing in it that a terminal would act on."""
    mailbox, written = Mailbox(tmp_path / "progress.jsonl"), io.StringIO()
    watch = Watch(Screen(written))
    mailbox.empty()
    logger = logging.Logger("gradinoc.pipeline.store")
    logger.addHandler(Aloud(partial(mailbox.post, worker="gw1")))
    logger.warning("Stored result %s is corrupt", "a\x1b[31m\nb")
    logger.info("nobody needs to know")
    stop = threading.Event()
    stop.set()
    mailbox.follow(watch.say, stop)
    (line,) = written.getvalue().splitlines()
    assert line[8:] == r"  gw1  Warning: Stored result a\x1b[31m\nb is corrupt"


@pytest.mark.exhaustive
@pytest.mark.fault("Storage", "a damaged file in a pytest session, with and without workers")
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["no xdist", "one worker"])
def test_session_says_what_was_damaged(undisturbed, tmp_path, workers):
    """By name; the step is computed anew, and the session goes on to the claims."""
    store = tmp_path / "store"
    shutil.copytree(undisturbed[0], store)
    damaged = next(store.glob("gradients/*/alignments.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    places = [f"--{place}={tmp_path / place}" for place in ("store", "artifacts", "datasets")]
    test = ROOT / "claims" / "test_c1_inoculation_lowers_alignment.py"
    command = [sys.executable, "-m", "pytest", str(test), "--study", "tiny", *as_options(SMALLEST), *workers, *places]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    warned = f"Warning: Stored result gradients/{damaged.parent.name} is corrupt ('alignments.parquet': "
    assert warned in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("Warning: Stored result") == 1
    assert "error" not in done.stdout.splitlines()[-1]
