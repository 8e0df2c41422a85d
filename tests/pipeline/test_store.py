"""Results are computed once, whole or not at all, and found again by what determines them."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradinoc.pipeline.storage import store
from gradinoc.pipeline.storage.contents import load_json, load_table, load_tensors, save_json, save_table, save_tensors
from gradinoc.pipeline.storage.provenance import code_version
from gradinoc.pipeline.storage.store import Store, load_or_compute

INPUTS = {"model": "abc", "seed": 1, "lr": 1e-4, "conditions": ["neutral", "inoculation"]}
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def entry(tmp_path):
    """An entry that is not computed yet."""
    return Store(tmp_path).entry("direction", INPUTS)


def write_answer(folder: Path) -> None:
    """A computation with two files, one of them in a folder."""
    (folder / "answer.txt").write_text("forty-two")
    (folder / "deep").mkdir()
    (folder / "deep" / "more.txt").write_text("more")


def run_python(code, *arguments):
    """A child process that runs `code` with the project on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


# --- keys

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_key_is_what_it_always_was(entry):
    """Golden value: a change of this key orphans every stored result, and must be meant."""
    assert entry.key == "f68353a653c8e3bf73a204befbcad3da7903381e85bd712ff0f87947c5ece99d"


@given(st.dictionaries(st.text(), plain, min_size=2, max_size=4))
def test_key_ignores_the_order_of_inputs(inputs):
    """The same inputs in another order are the same inputs."""
    backwards = dict(reversed(inputs.items()))
    assert Store(Path()).entry("stage", inputs).key == Store(Path()).entry("stage", backwards).key


@pytest.mark.parametrize("change", [{"seed": 2}, {"seed": 1.0}, {"extra": None}, {"conditions": ["neutral"]}])
def test_key_depends_on_every_input(entry, tmp_path, change):
    """A changed value, a changed type, one input more: another result."""
    assert Store(tmp_path).entry("direction", {**INPUTS, **change}).key != entry.key


@pytest.mark.parametrize("value", [float("nan"), Path("here"), {1}, object()])
def test_input_that_identifies_nothing_is_refused(tmp_path, value):
    """NaN equals nothing, and two objects may look alike: nothing is turned into text silently."""
    with pytest.raises((ValueError, TypeError)):
        Store(tmp_path).entry("direction", {"training": [0.0, value]})


# --- computing once


def test_result_is_computed_once(entry):
    """The second time it is loaded."""
    calls = []

    def compute(folder):
        calls.append(folder)
        write_answer(folder)

    assert not entry.complete()
    assert load_or_compute(entry, compute) == load_or_compute(entry, compute) == entry.path
    assert entry.complete()
    assert len(calls) == 1
    assert (entry.path / "deep" / "more.txt").read_text() == "more"


def test_failed_computation_leaves_nothing(entry):
    """Neither a result nor half of one; the next attempt starts afresh."""

    def fail(folder):
        write_answer(folder)
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        load_or_compute(entry, fail)
    assert not entry.complete()
    assert [path for path in entry.path.parent.iterdir() if path.is_dir()] == []
    load_or_compute(entry, write_answer)
    assert entry.complete()


COMPUTE = """
    import sys, time
    from pathlib import Path
    from gradinoc.pipeline.storage.store import Store, load_or_compute
    root, seconds = Path(sys.argv[1]), float(sys.argv[2])
    def compute(folder):
        print("computing", flush=True)
        (folder / "answer.txt").write_text("forty-two")
        time.sleep(seconds)
    print((load_or_compute(Store(root).entry("run", {"seed": 0}), compute) / "answer.txt").read_text(), flush=True)
"""


def test_two_processes_compute_once(tmp_path):
    """One computes, the other waits for it, both have the answer."""
    children = [run_python(COMPUTE, tmp_path, 1.0) for _ in range(2)]
    said = [child.communicate()[0].split() for child in children]
    assert sorted(said, key=len) == [["forty-two"], ["computing", "forty-two"]]


def test_killed_process_leaves_no_lock_and_no_half_result(tmp_path):
    """Whoever comes next computes at once, and what the dead process left behind is cleared away."""
    entry = Store(tmp_path).entry("run", {"seed": 0})
    child = run_python(COMPUTE, tmp_path, 60)
    assert child.stdout.readline() == "computing\n"
    with entry.lock(wait=False) as held:
        assert not held, "A living process holds the entry"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert [path for path in entry.path.parent.glob(".*") if path.is_dir()], "The dead process left its scratch folder"
    with entry.lock(wait=False) as held:
        assert held
    assert not entry.complete()
    load_or_compute(entry, write_answer)
    assert [path for path in entry.path.parent.glob(".*") if path.is_dir()] == []


def test_checksums_are_taken_once_an_entry(entry, monkeypatch):
    """Asking again whether a result is complete reads no file again."""
    load_or_compute(entry, write_answer)
    assert entry.complete()
    monkeypatch.setattr(store, "checksum", lambda path: pytest.fail(f"{path} is read again"))
    assert entry.complete()


# --- formats


def test_tables_tensors_and_json_come_back_as_they_were(tmp_path):
    """Missing stays NaN, types stay, shared and transposed memory is no obstacle."""
    table = pd.DataFrame({"layer": [0, 1], "alignment": [0.25, float("nan")], "condition": ["neutral", "inoculation"]})
    save_table(table, tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(load_table(tmp_path / "table.parquet"), table)
    base = torch.arange(6.0).reshape(2, 3)
    save_tensors({"view": base.T, "base": base, "half": base.bfloat16()}, tmp_path / "tensors.safetensors")
    loaded = load_tensors(tmp_path / "tensors.safetensors")
    assert torch.equal(loaded["view"], base.T)
    assert torch.equal(loaded["base"], base)
    assert loaded["half"].dtype == torch.bfloat16
    save_json({"é": [1, 2.5, None]}, tmp_path / "value.json")
    assert load_json(tmp_path / "value.json") == {"é": [1, 2.5, None]}


# --- the version of the code

MODULES = {
    "drift": '''
        """What drift is."""
        from toy.fast import multiply
        from toy.gradients import norm
        def drift(x):
            """How far."""
            return multiply(norm(x)) + 1  # one more
    ''',
    "gradients": "def norm(x):\n    return x * x\n",
    "report": "WIDTH = 3\n",
    "fast/__init__": "from toy.fast.kernels import multiply\nSCALE = 2\n",
    "fast/kernels": "def multiply(x):\n    return 5 * x\n",
}


@pytest.fixture
def toy(tmp_path):
    """A package of three modules and a package: a function that edits one and gives the version of `drift`."""
    folder = tmp_path / "toy"
    (folder / "fast").mkdir(parents=True)
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))

    def version_with(name, old, new):
        text = textwrap.dedent(MODULES[name])
        assert old in text
        (folder / f"{name}.py").write_text(text.replace(old, new))
        code_version.cache_clear()
        return code_version("toy.drift", root=tmp_path)

    return version_with


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("drift", "# one more", "# a remark"),
        ("drift", "How far.", "How far it went."),
        ("drift", "multiply(norm(x)) + 1", "(multiply(norm(x))\n        + 1)"),
        ("report", "WIDTH = 3", "WIDTH = 4"),
    ],
)
def test_code_version_ignores_remarks_layout_and_other_modules(toy, name, old, new):
    """What cannot change the result does not throw it away."""
    assert toy(name, old, new) == toy(name, old, old)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("drift", "+ 1", "+ 2"),
        ("gradients", "x * x", "x * x * x"),
        ("fast/__init__", "SCALE = 2", "SCALE = 3"),
        ("fast/kernels", "5 * x", "6 * x"),
    ],
)
def test_code_version_follows_the_code_and_what_it_imports(toy, name, old, new):
    """A changed computation is another one, wherever in the package it sits."""
    assert toy(name, old, new) != toy(name, old, old)


def test_code_version_parses_a_module_once_for_all_steps(toy, tmp_path, monkeypatch):
    """What two steps share is parsed for the first alone: of a complete study's `run` this was a fifth."""
    toy("drift", "+ 1", "+ 7")
    parse, parsed = ast.parse, []
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or parse(text))
    code_version("toy.drift", "toy.report", root=tmp_path)
    assert parsed == ["WIDTH = 3\n"]


def test_code_version_covers_this_package():
    """Real modules are found; one that is not there is named."""
    assert code_version("gradinoc.measure.loading.load") != code_version("gradinoc.pipeline.storage.store")
    with pytest.raises(FileNotFoundError, match=r"no_such\.py"):
        code_version("gradinoc.no_such")
