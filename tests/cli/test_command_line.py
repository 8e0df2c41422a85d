"""The command line: what it takes, what it says on which stream, with which exit code, and what it leaves."""

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

import numpy as np
import pandas as pd
import pytest
import typer

from fixtures.finished import SETTINGS
from fixtures.small_study import SMALLEST, as_options
from gradinoc.claims.rules.verdict import judge
from gradinoc.cli import main
from gradinoc.cli.commands import app
from gradinoc.cli.comparison import comparison, read_artifacts
from gradinoc.cli.output import duration, print_table
from gradinoc.data.sources import load_source
from gradinoc.data.splits import split
from gradinoc.measure.loading.selftests import CAUSALITY, COMPLETION, GENERATION, GRADIENT, PADDING
from gradinoc.models.sources import packaged as bundled
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.plan import plan
from gradinoc.pipeline.store import Store
from gradinoc.power.simulate import simulate
from gradinoc.report.tables import claims_table, runs_table, write_json, write_table
from gradinoc.study.loading import STUDIES, load_study
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.rules import VERSION

ROOT = Path(__file__).parents[2]
FEW = ["drift.generations=9", "drift.log_odds=9", "drift.matrix=9"]  # within nine questions that are held out
COMMANDS = typer.main.get_command(app).commands
SIZES = {"layers": 2, "steps": 6, "directions": 100, "positions": 1}


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


# --- compare


def leave(folder: Path, world: str, *settings: str, **sizes: int) -> Path:
    """What the report of a simulated study leaves for a comparison."""
    study = load_study("tiny", list(settings))
    evidence = simulate(world, np.random.default_rng(0), **{**SIZES, **sizes})
    judgement = judge(evidence, study.rules)
    published = study.published.model_dump()
    write_json(
        {"study": study.name, "rules": VERSION, "published": published, **vars(judgement)}, folder / "verdict.json"
    )
    write_table(claims_table((*judgement.gates, *judgement.claims)), folder / "claims.csv")
    write_table(runs_table(evidence), folder / "runs.csv")
    (folder / "study.json").write_text(study.model_dump_json(), encoding="utf-8")
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """An effect, and none, with another model, learning rate and number of seeds."""
    other = ("model.id=deaf", "training.lr=0.001", "seeds=[0, 1]", "name=second")
    return leave(tmp_path / "first", "effect"), leave(tmp_path / "second", "no_effect", *other, seeds=2)


def test_comparison_sets_two_studies_side_by_side(two, capsys, tmp_path):
    """Verdicts, claims, drift and settings on stdout; every effect in the table; a figure."""
    before = {path: path.read_bytes() for folder in two for path in folder.iterdir()}
    assert main(["compare", *map(str, two), "--out", str(tmp_path / "out")]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    verdicts = [json.loads((folder / "verdict.json").read_text())["verdict"] for folder in two]
    assert f"verdict {' '.join(verdicts)}" in said
    assert f"version of the rules {VERSION} {VERSION}" in said
    assert "verdict by rules 1, published supported –" in said
    assert "training.lr 0.003 0.001" in said
    assert 'model.id "obedient" "deaf"' in said
    assert "seeds [0, 1, 2] [0, 1]" in said
    assert not any(line.startswith("training.steps") for line in said)
    assert (tmp_path / "out" / "compare.png").stat().st_size > 20_000
    table = pd.read_csv(tmp_path / "out" / "compare.csv")
    for number, folder in enumerate(two, start=1):
        claims = pd.read_csv(folder / "claims.csv").dropna(subset=["effect", "estimate"])
        pairs = set(zip(claims["claim"], claims["key"], strict=True))
        listed = table[table["part"] == "claim"].dropna(subset=["first" if number == 1 else "second"])
        assert pairs == set(zip(listed["item"], listed["key"], strict=True))
    assert {path: path.read_bytes() for folder in two for path in folder.iterdir()} == before


def test_difference_is_the_second_less_the_first_where_it_says_something(two):
    """Of effects and drift; not of p, and not of what is in the units of another model."""
    table = comparison(*map(read_artifacts, two))
    known = table["difference"].notna()
    assert np.allclose(table.loc[known, "difference"], table.loc[known, "second"] - table.loc[known, "first"])
    assert known[table["key"] == "alignment.neutral"].any()
    assert (table["part"] == "p").sum() > 10
    in_units = table["key"].str.contains("projection|grad_norm")
    assert in_units.sum() >= len(CONDITIONS)
    assert not known[in_units | (table["part"] == "p")].any()
    both = table[["first", "second"]].notna().all(axis=1)
    assert known[both & ~in_units & (table["part"] != "p")].all()


def test_same_models_are_compared_in_their_own_units_and_other_traits_scores_are_not(tmp_path):
    """The projection of one model against itself; direction, answers and score are of their trait."""
    paths = [leave(tmp_path / "one", "effect"), leave(tmp_path / "two", "no_effect", "name=two")]
    same = comparison(*map(read_artifacts, paths)).set_index(["part", "item", "key"])["difference"]
    of_the_trait = [("drift", "neutral", measure) for measure in ("projection", "expected_score", "decision_log_odds")]
    of_the_trait += [("claim", "C1", "alignment.neutral"), ("claim", "C6", "share")]
    assert np.isfinite(same[of_the_trait]).all()
    note = paths[1] / "study.json"
    note.write_text(note.read_text().replace('"all_caps"', '"lower_case"'))
    other = comparison(*map(read_artifacts, paths)).set_index(["part", "item", "key"])["difference"]
    assert other[of_the_trait].isna().all()
    assert np.isfinite(other[[("claim", "G3", "loss"), ("claim", "G4", "fall"), ("claim", "G1", "auc")]]).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("verdict.json", None),
        ("verdict.json", b"[1]"),
        ("study.json", b"\xff\xfe{"),
        ("claims.csv", b"a,b\n1,2\n"),
        ("runs.csv", b""),
    ],
)
def test_comparison_of_what_is_no_report_is_refused(two, capsys, file, content):
    """In one line that names the file; nothing is written."""
    path = two[1] / file
    path.unlink() if content is None else path.write_bytes(content)
    assert main(["compare", *map(str, two)]) == 2
    assert f"{file}: " in capsys.readouterr().err
    assert not list(two[1].glob("compared-with-*"))


def test_version_is_that_of_the_package(capsys):
    """As pip has it."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gradinoc {version('gradinoc')}\n"


# --- doctor


def test_doctor_finds_this_machine_well(tmp_path, capsys):
    """Exit code 0, a line a look; nothing is left in the folders that were tried."""
    assert main(["doctor", "--store", str(tmp_path / "s"), "--artifacts", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    for what in ("torch", "device", "causality, float32", "gradients, float32", "model obedient", "hub", "store"):
        assert any(f" {what} " in line for line in said.splitlines()), what
    assert not list(tmp_path.iterdir())


def test_doctor_of_a_model_shows_how_a_study_would_read_it(tmp_path, capsys):
    """Self-tests in either dtype, notes on files and model, every condition's prompt, and which tokens carry loss."""
    turns = (bundled.ORGANISMS / "obedient" / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "opened.jinja").write_text(turns.replace("<|assistant|>", "<|assistant|>Well, "), encoding="utf-8")
    changed = [f"--set=model.chat_template={tmp_path / 'opened.jinja'}", "--set=model.extraction_dtype=bfloat16"]
    assert main(["doctor", "obedient", "--set=model.device=cpu", *changed]) == 0
    said = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in said.splitlines()]
    for test in (COMPLETION, CAUSALITY, PADDING, GENERATION, GRADIENT):
        for dtype in ("float32", "bfloat16"):
            assert rows.count(f"{test}, {dtype}") == 1
    for note in ("not the model's (model.chat_template)", "LoRA on 28 linear maps"):
        assert said.count(note) == 1
    prompts = list(load_study("tiny").measured)
    mask = ["inoculation: without loss", "inoculation: with loss"]
    assert [row for row in rows if row.split(":")[0] in prompts] == [*prompts, *mask]


def test_doctor_says_what_is_broken(tmp_path, capsys, monkeypatch):
    """A bundled model that is not there, a packaged one that was changed, a store that cannot be: exit code 1."""
    folder = tmp_path / "organisms"
    shutil.copytree(bundled.ORGANISMS / "obedient", folder / "obedient")
    monkeypatch.setattr(bundled, "ORGANISMS", folder)
    monkeypatch.setattr("gradinoc.cli.doctor.packaged_digest", lambda _name: "00" * 32)
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--store", str(tmp_path / "file" / "store"), "--artifacts", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("Broken: ")
    assert {"deaf", "smollm2-135m-instruct", "store"} <= set(re.findall(r"[\w.-]+", said.splitlines()[-1]))
