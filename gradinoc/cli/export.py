"""`gradinoc export`: write a finished study in a form for others, and say what is where."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from gradinoc.cli.run import described_in
from gradinoc.errors import StudyError, printable
from gradinoc.report.exports.pull_request import EXPERIMENTS, write_pull_request
from gradinoc.report.exports.record import Record, publish
from gradinoc.report.exports.release import write_release

PREFIX = re.compile(r"[A-Za-z0-9][\w-]*")


def export_record(artifacts: Path, folder: Path, figures: Sequence[str]) -> None:
    """Publish a study's record, and name the figures in it."""
    made = publish(artifacts, folder, figures)
    sys.stdout.write(f"{printable(folder)}: study {made.name}, {', '.join(made.figures) or 'without figures'}\n")


def export_release(artifacts: Sequence[Path], out: Path, license_name: str | None) -> None:
    """Make a release, and say how it is checked."""
    manifest = write_release(artifacts, out, license_name)
    names = ", ".join(Record(path).name for path in artifacts)
    files = len(manifest.read_text(encoding="utf-8").splitlines())
    check = f"cd {shlex.quote(str(out))} && sha256sum --check --quiet {manifest.name}"
    sys.stdout.write(f"{printable(out)}: {names}, {files} files. Is it whole? {check}\n")


def export_pull_request(artifacts: Path, checkout: Path, prefix: str) -> None:
    """Write a study into a checkout, and say how git takes it.

    Raises:
        StudyError: a prefix that is no beginning of a folder's name, or as `write_pull_request`.
    """
    if not PREFIX.fullmatch(prefix):
        raise StudyError(f"--prefix {prefix}: expected letters, digits, - and _")
    place = write_pull_request(described_in(artifacts), artifacts, checkout, prefix)
    inside = f"{EXPERIMENTS}/{place.name}"
    commands = (f"git switch -c {place.name}", f"git add {inside}", f"git commit -m 'Add {inside}'")
    lines = [f"cd {shlex.quote(str(checkout))}", *commands]
    sys.stdout.write(
        "\n".join([f"{printable(place)} is written. To propose it:", *(f"  {each}" for each in lines), ""])
    )
