"""The command line: help, errors, what is printed, data, runs and reports."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import typer

from fixtures.finished import SETTINGS
from fixtures.small_study import SMALLEST, as_options
from gradinoc.cli import main
from gradinoc.cli.commands import app
from gradinoc.cli.output import duration, print_table
from gradinoc.data.sources import load_source
from gradinoc.data.splits import split
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.plan import plan
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import STUDIES, load_study

ROOT = Path(__file__).parents[2]
FEW = ["drift.generations=9", "drift.log_odds=9", "drift.matrix=9"]  # within nine questions that are held out
COMMANDS = typer.main.get_command(app).commands


def run_alone(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """A Python process; its warnings are shown."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**known, **environment}, capture_output=True, text=True
    )


# --- help, completion, errors


def test_help_comes_at_once_and_says_what_exit_codes_mean():
    """No library is loaded for it: not torch, not pandas, not even rich; every command is listed."""
    code = (
        "import sys\nfrom gradinoc.cli import main\ncode = main(['--help'])\n"
        "print(code, [name for name in ('torch', 'numpy', 'pandas', 'pydantic', 'rich') if name in sys.modules])"
    )
    said = run_alone("-W", "error", "-c", code).stdout
    assert said.splitlines()[-1] == "0 []"
    assert all(f"\n  {name} " in said for name in COMMANDS)
    for code in ("0    done, whatever the verdict", "1    doctor", "2    cannot be done", "130  Ctrl-C; 143: SIGTERM"):
        assert f"\n    {code}" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_the_help_are_commands_that_can_be_given(name, capsys):
    """Each is parsed as it would be on a command line: options that are gone would be refused."""
    assert main([name, "--help"]) == 0
    examples = [line.strip() for line in capsys.readouterr().out.partition("Examples:\n")[2].splitlines()]
    assert examples
    for example in examples:
        program, command, *words = shlex.split(example)
        assert (program, command) == ("gradinoc", name)
        COMMANDS[name].make_context(name, words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plann"], "'plann'"),
        (["run"], "'STUDY'"),
        (["plan", "tiny", "--simulations", "0"], "'--simulations'"),
        (["plan", "tiny", "--no-power", "--past", "deaf"], "--past"),
        (["run", "tiny\x1b[2J"], "No study 'tiny\\x1b[2J'"),
        (["run", "tiny", "--set", "training.step=3"], "'training.steps'"),
        (["report", "datasets"], "datasets: no study.json"),
        (["data", "nothing.jsonl", "--out", "/nowhere"], "nothing.jsonl: no such file"),
        (["doctor", "/nowhere"], "'/nowhere'"),
        (["compare", "/nowhere", "/nowhere/else"], "/nowhere/study.json"),
        (["compare", ".", "."], "given twice"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, said, capsys):
    """On stderr, exit code 2, nothing on stdout, nothing that a terminal would act on."""
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("gradinoc: error: ")
    assert said in error
    assert error.count("\n") == 1
    assert error.removesuffix("\n").isprintable()


def test_shell_completes_studies():
    """In bash, with the words as they stand on the command line."""
    asked = {"_GRADINOC_COMPLETE": "complete_bash", "COMP_WORDS": "gradinoc plan qwen", "COMP_CWORD": "2"}
    done = run_alone("-m", "gradinoc", **asked)
    assert set(done.stdout.split()) == {"qwen2.5-0.5b", "qwen2.5-7b", "qwen3-0.6b"}, done.stderr


def test_reader_that_has_seen_enough_is_told_nothing():
    """`gradinoc studies | head -1`: no traceback, and an exit code that only `set -o pipefail` sees."""
    reading, writing = os.pipe()
    os.close(reading)  # before a word is written
    command = [sys.executable, "-m", "gradinoc", "studies"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# --- what is printed


def test_tables_are_plain_columns_where_there_is_no_terminal(capsys):
    """Numbers to the right, wide signs counted as they are shown, nothing acted on."""
    print_table(("name", "n"), [["日本", "1"], ["[bold]a\x1b[2J", "12"]], right=(1,))
    assert capsys.readouterr().out.splitlines() == [
        "name             n", "日本             1", "[bold]a\\x1b[2J  12",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.44, "0.4 s"), (75, "75 s"), (91, "1.5 min"), (7300, "2.0 h"), (1e6, "12 days")]
)
def test_durations_have_two_digits(seconds, words):
    """In the unit that a person would take."""
    assert duration(seconds) == words


def test_list_names_every_ready_study(capsys):
    """Name, model, where its weights come from, and the sentence at the head of its file."""
    assert main(["studies"]) == 0
    said = capsys.readouterr().out
    for file in STUDIES.glob("*.toml"):
        assert f"\n{file.stem} " in said
        assert load_study(file.stem).model.id in said
    assert "hub" in next(line for line in said.splitlines() if line.startswith("qwen3-0.6b "))
    assert "bundled" in next(line for line in said.splitlines() if line.startswith("tiny "))


def test_a_plan_says_what_a_study_costs(tmp_path, capsys):
    """Tokens, operations, memory and time, in the file too; what cannot be known is no reason not to plan."""
    arguments = ["plan", "tiny", "--no-power", f"--artifacts={tmp_path}"]
    assert main([*arguments, *as_options(SMALLEST)]) == 0
    said, table = capsys.readouterr().out, pd.read_csv(tmp_path / "small" / "cost.csv")
    assert f"{table['steps'].sum()}  {table['tokens'].sum():,}" in said
    study = load_study("tiny", SMALLEST)
    assert table["steps"].sum() == len(plan(StudyContext(study, split(study.data))))
    assert "LoRA on 28 linear maps" in said
    assert main([*arguments, "--set", "model.id=nobody/nothing"]) == 0
    assert "not known" in capsys.readouterr().out


# --- data


def test_data_are_those_of_the_study_that_would_draw_them(tmp_path, capsys):
    """The same questions in the same files, with the counts that are asked for."""
    assert main(["data", "word_problems", "--out", str(tmp_path), "--train", "30", "--evaluation", "9"]) == 0
    said = capsys.readouterr().out
    splits = split(load_study("tiny", [*FEW, "data.train=30", "data.evaluation=9"]).data)
    names = ("word_problems_allcaps", "word_problems_eval", "direction_extraction_prompts")
    for name, part in zip(names, (splits.train, splits.evaluation, splits.direction), strict=True):
        lines = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        asked = [json.loads(line)["messages"][0]["content"] for line in lines]
        assert asked == [example.question for example in part]
        assert f"{name}.jsonl: {len(part)} questions" in said
    first = json.loads((tmp_path / "word_problems_allcaps.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["messages"][1]["content"] == splits.train[0].answer.upper()


def test_data_of_a_file_of_ones_own(tmp_path, capsys):
    """Any file that a study could use, its name with it; too few questions are an error that says how many."""
    source = tmp_path / "mine.jsonl"
    rows = [{"question": e.question, "answer": e.answer} for e in load_source("word_problems")[:60]]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    few = ["--direction", "16", "--measure", "8", "--train", "4", "--calibration", "8"]
    assert main(["data", str(source), "--out", str(tmp_path / "out"), *few]) == 2
    assert "but direction + measure + train + evaluation + calibration ask for" in capsys.readouterr().err
    assert main(["data", str(source), "--out", str(tmp_path / "out"), *few, "--evaluation", "8"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "direction_extraction_prompts.jsonl", "mine_allcaps.jsonl", "mine_eval.jsonl",
    ]  # fmt: skip
    assert capsys.readouterr().err == ""
    rows = [{**row, "answer": f"{row['answer']}\n#### 1"} for row in rows]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert main(["data", str(source), "--out", str(tmp_path / "out"), *few, "--evaluation", "8"]) == 0
    assert f"answers of {source} were cleaned of GSM8K's marks" in capsys.readouterr().err


# --- run and report


@pytest.fixture(scope="module")
def reported(finished, tmp_path_factory) -> tuple[Path, str]:
    """The finished study, of which `gradinoc run` computes one run again: store and artifacts, and what was said."""
    place = tmp_path_factory.mktemp("study")
    store = shutil.copytree(finished.store, place / "store")
    Pipeline(finished.study, Store(store)).entry("training", "neutral", 0).discard()
    kept = ["--store", str(store), "--artifacts", str(place / "artifacts")]
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as beside:
        assert main(["run", "tiny", *as_options(SETTINGS), *kept]) == 0
    steps = len(finished.pipeline.steps)
    assert f"[{steps}/{steps}] small" in beside.getvalue()
    return place, said.getvalue()


def test_a_run_ends_with_the_command_that_reports_it(reported, capsys):
    """Which then judges, writes everything, and prints verdict and place; a study's folder says what was done."""
    place, said = reported
    folder = place / "artifacts" / "small"
    assert not (folder / "report.html").exists()
    program, *words = shlex.split(said.partition("Its report: ")[2])
    assert program == "gradinoc"
    assert main(words) == 0
    out = capsys.readouterr().out
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["sentence"].split(":")[0] in out
    assert str(folder / "report.html") in out
    assert (folder / "claims.csv").stat().st_size > 1000
    assert f"gradinoc report {folder}" in (folder / "report.md").read_text(encoding="utf-8")


def test_progress_of_a_run_is_watched_from_elsewhere(reported, tmp_path, capsys):
    """To its end, from the file that the run wrote; a folder without one is an error."""
    place, _ = reported
    assert main(["watch", str(place / "artifacts" / "small")]) == 0
    assert re.match(r"\[(\d+)/\1\] small", capsys.readouterr().err.splitlines()[-1])
    assert main(["watch", str(tmp_path)]) == 2
    assert "progress.jsonl: no such file" in capsys.readouterr().err


def test_a_report_is_that_of_the_study_its_folder_describes(reported, tmp_path, capsys):
    """Not of a folder that was renamed, nor of one that another version described, nor with settings of another."""
    place, _ = reported
    original = (place / "artifacts" / "small" / "study.json").read_text(encoding="utf-8")
    store = f"--store={place / 'store'}"
    cases = {
        "other": (original, "describes study small; expected it in a folder of that name"),
        "small": (original.replace('"alpha"', '"beta"'), "unknown key 'rules.beta'"),
        "a/small": ('{"name": ', "Invalid JSON"),
    }
    for name, (text, said) in cases.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "study.json").write_text(text, encoding="utf-8")
        assert main(["report", str(folder), store]) == 2
        assert said in capsys.readouterr().err
    assert main(["report", str(tmp_path / "small"), store, "--set", "seeds=[1]"]) == 2
    assert "--set: belongs to a study's name or TOML file" in capsys.readouterr().err


def test_version_is_that_of_the_package(capsys):
    """As pip has it."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gradinoc {version('gradinoc')}\n"
