"""An installed wheel brings what a first study needs: tiny models, bundled questions, ready studies, templates."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gradinoc.data.export import BUNDLED
from gradinoc.models.sources.packaged import ORGANISMS, TINY

ROOT = Path(__file__).parents[1]
QUESTIONS = {f"datasets/{name}.jsonl" for name in BUNDLED}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_holds_the_bundled_models_and_questions(installed):
    """Every file of a tiny model, and every bundled source; nothing that a study would write."""
    models = {
        f"fixtures/organisms/{file.relative_to(ORGANISMS).as_posix()}"
        for n in TINY
        for file in (ORGANISMS / n).iterdir()
    }
    shipped = installed / "gradinoc" / "shipped"
    held = {file.relative_to(shipped).as_posix() for file in shipped.rglob("*") if file.is_file()}
    assert held == models | QUESTIONS


def test_installed_library_finds_them_in_an_empty_folder(installed, tmp_path):
    """Away from any checkout the tiny study's model and questions come from the wheel."""
    code = (
        "from gradinoc.data.sources import load_source\nfrom gradinoc.models.sources.packaged import bundled_folder\n"
        "from gradinoc.study.loading import load_study\n"
        "study = load_study('tiny')\nprint(bundled_folder(study.model.id), len(load_source(study.data.source)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    folder, questions = ran.stdout.split()
    assert Path(folder).is_relative_to(installed)
    assert int(questions) > 100
