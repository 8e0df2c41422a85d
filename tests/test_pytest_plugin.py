"""The plugin: a claim of one's own works where gradinoc is installed, and other projects do not notice it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from fixtures.finished import SETTINGS
from fixtures.small_study import as_options

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "your-own-claim.md"
PLUGIN = "gradinoc.pytest_plugin"
LIBRARIES = ("torch", "transformers", "pandas", "matplotlib", "numpy", "pydantic", "rich")
FOREIGN = f"""
import sys
import pytest

@pytest.fixture(params=[1, 2])
def seed(request):
    return request.param

@pytest.fixture
def study():
    return "mine"

def test_mine(study, seed):
    assert study == "mine"
    assert not [name for name in {LIBRARIES} if name in sys.modules]
"""


def pytest_in(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """A session in another project's folder, in which the plugin is registered."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", PLUGIN, *words],
        cwd=folder, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def test_pip_registers_the_plugin_by_its_module_s_name():
    """So that a checkout's conftest, or `-p`, which name the module, register no second one."""
    (found,) = (each for each in entry_points(group="pytest11") if each.value == PLUGIN)
    assert found.name == PLUGIN


def test_project_that_asks_for_no_study_does_not_notice(tmp_path):
    """No library is imported, no file made, no line added, and its own fixtures of those names are left alone."""
    (tmp_path / "test_mine.py").write_text(FOREIGN)
    done = pytest_in(tmp_path)
    assert re.search("2 passed in", done.stdout), done.stdout + done.stderr
    assert "study:" not in done.stdout
    assert "artifacts" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]


@pytest.fixture
def repository(tmp_path):
    """An empty folder with the file of the page."""
    (file,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "test_my_claim.py").write_text(file)
    return tmp_path


def test_claim_of_one_s_own_runs_as_the_page_says(finished, repository):
    """On every condition and run of the study that is asked for; a claim that does not hold fails."""
    study = ["--study", "tiny", *as_options(SETTINGS), f"--store={finished.store}"]
    done = pytest_in(repository, "-v", *study)
    outcomes = dict(re.findall(r"::(test_\S+) (PASSED|FAILED)", done.stdout))
    others = [condition for condition in finished.study.conditions if condition != "inoculation"]
    assert set(finished.study.conditions) < {condition for condition, _ in finished.study.runs}
    expected = {f"test_inoculation_lowers_alignment_at_every_layer[{other}]" for other in others}
    expected |= {f"test_run_learns[{condition}-{seed}]" for condition, seed in finished.study.runs}
    assert outcomes.keys() == expected, done.stdout + done.stderr
    assert outcomes["test_inoculation_lowers_alignment_at_every_layer[neutral]"] == "PASSED"
    assert done.returncode == ("FAILED" in outcomes.values())
    assert (repository / "artifacts" / "small" / "study.json").is_file()


def test_claim_is_skipped_where_no_study_is_asked_for(repository):
    """With what to do; nothing is computed."""
    (repository / "test_my_claim.py").write_text("def test_mine(evidence):\n    assert False\n")
    done = pytest_in(repository, "-rs")
    assert re.search("1 skipped in", done.stdout), done.stdout + done.stderr
    assert "pytest --study tiny" in done.stdout
    assert len(list(repository.iterdir())) == 1


def test_study_that_cannot_be_run_is_one_line(repository):
    """Before anything is collected."""
    done = pytest_in(repository, "--study", "tiny", "--set", "model.id=/nowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search("^ERROR: .*/nowhere", done.stderr, re.MULTILINE), done.stderr
