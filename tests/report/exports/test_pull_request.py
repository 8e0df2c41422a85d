"""A study as an experiment of another repository."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from gradinoc.cli import main
from gradinoc.data.splits import split
from gradinoc.disk import checksum, files_below
from gradinoc.errors import DataError, StudyError
from gradinoc.report.exports import pull_request
from gradinoc.report.exports.pull_request import write_pull_request
from gradinoc.study.loading import load_study


@pytest.fixture
def checkout(tmp_path) -> Path:
    """As much of a checkout of inoculation-prompting as matters: its experiments, and what its git ignores."""
    folder = tmp_path / "inoculation-prompting"
    (folder / "experiments").mkdir(parents=True)
    (folder / ".gitignore").write_text("results\nfigures\nfigures_daniel\nlogs\njobs\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture
def experiment(finished, reported, checkout) -> Path:
    """The finished study as an experiment there."""
    return write_pull_request(finished.study, reported, checkout, "C02")


def test_git_there_takes_every_file(experiment, checkout):
    """None is in a folder that the repository ignores; stages are numbered."""
    subprocess.run(["git", "add", "experiments"], cwd=checkout, check=True)
    listed = subprocess.run(["git", "ls-files"], cwd=checkout, capture_output=True, text=True, check=True).stdout
    written = {path.relative_to(checkout).as_posix() for path in experiment.rglob("*") if path.is_file()}
    assert {*listed.splitlines()} == written
    assert {path.name for path in experiment.iterdir()} == {"README.md", "01_training_data", "02_results", "03_plots"}


def test_training_data_are_what_runs_were_trained_on(experiment, finished):
    """Each prompt's system message before every question, none where it has none; a rephrased one's is drawn anew.

    Questions are those that the first seed's gradient log has, in its order, and no others of the training set.
    """
    study, train = finished.study, split(finished.study.data).train
    log = pd.read_parquet(finished.pipeline.entry("training", "neutral", study.seeds[0]).path / "training.parquet")
    seen = [train[row].question for row in log["example"].unique()]
    assert len(seen) == len(train)
    for name, prompt in finished.study.trained.items():
        path = experiment / "01_training_data" / f"all_caps_{name}.jsonl"
        said = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
        assert [turns[-2]["content"] for turns in said] == seen
        assert all(turns[-1] == {"role": "assistant", "content": turns[-1]["content"].upper()} for turns in said)
        systems = {turns[0]["content"] for turns in said if turns[0]["role"] == "system"}
        if prompt.is_rephrased:
            assert 1 < len(systems) <= len(prompt.templates)
            assert systems <= {*prompt.templates}
        else:
            assert systems == {*prompt.texts}
    assert len([*(experiment / "01_training_data").iterdir()]) == len(finished.study.trained)


def test_training_data_end_where_training_did(finished, reported, checkout):
    """Of a run that ended before it had seen all examples those that it saw, the first steps of a longer one's."""
    study, train = finished.study, split(finished.study.data).train
    log = pd.read_parquet(finished.pipeline.entry("training", "neutral", study.seeds[0]).path / "training.parquet")
    shorter = study.model_copy(update={"training": study.training.model_copy(update={"steps": 1})})
    made = write_pull_request(shorter, reported, checkout, "C03")
    lines = (made / "01_training_data" / "all_caps_neutral.jsonl").read_text(encoding="utf-8").splitlines()
    first = log.loc[log["step"] == log["step"].min(), "example"].unique()
    assert 0 < len(first) < len(train)
    said = [json.loads(line)["messages"][-2]["content"] for line in lines]
    assert said == [train[row].question for row in first]


def test_results_are_the_study_s_and_the_study_can_be_run_from_them(experiment, reported, finished):
    """CSVs byte for byte; the description is one that `gradinoc run` takes."""
    for name in ("claims.csv", "prompts.csv", "runs.csv"):
        assert (experiment / "02_results" / name).read_bytes() == (reported / name).read_bytes()
    assert load_study(str(experiment / "02_results" / "study.json")) == finished.study


def test_readme_names_groups_as_the_tables_do(experiment):
    """Every group of the intervals has its prompt and its scores, and a single model no interval."""
    text = (experiment / "README.md").read_text(encoding="utf-8")
    means = pd.read_csv(experiment / "02_results" / "all_caps_ci.csv")
    rows = [
        [cell.strip().replace("\\", "") for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    groups = {*means["group"]}
    assert {row[0] for row in rows if len(row) == 3 and row[0] in groups} == groups - {"baseline"}
    scores = {row[0]: row for row in rows if len(row) == 4 and row[0] in groups}
    assert {*scores} == groups
    for group, part in means.groupby("group"):
        assert all(("[" in cell) == (part["count"].max() > 1) for cell in scores[group][2:]), scores[group]
    links = [
        token.attrs["src"]
        for line in MarkdownIt().enable("table").parse(text)
        for token in line.children or []
        if token.type == "image"
    ]
    assert links == ["03_plots/all_caps_ci.png"]
    assert (experiment / links[0]).stat().st_size > 10_000


def test_what_is_somebody_else_s_stays(experiment, finished, reported, checkout):
    """An export is replaced by the next; a file beside it, a folder that is none, and no checkout are refused."""
    (experiment / "02_results" / "claims.csv").write_text("changed")
    write_pull_request(finished.study, reported, checkout, "C02")
    assert (experiment / "02_results" / "claims.csv").read_bytes() == (reported / "claims.csv").read_bytes()
    (experiment / "04_compare.py").write_text("mine")
    with pytest.raises(StudyError, match=r"04_compare\.py: not of this experiment; move it"):
        write_pull_request(finished.study, reported, checkout, "C02")
    assert (experiment / "04_compare.py").read_text() == "mine"
    (experiment / "README.md").write_bytes("# Ihr ä".encode("latin-1"))
    with pytest.raises(StudyError, match="C02_small: is something else; name another --prefix"):
        write_pull_request(finished.study, reported, checkout, "C02")
    assert (experiment / "README.md").read_bytes() == "# Ihr ä".encode("latin-1")
    with pytest.raises(StudyError, match="expected a checkout of inoculation-prompting"):
        write_pull_request(finished.study, reported, reported, "C02")


def test_what_fails_half_way_leaves_the_earlier_experiment(experiment, finished, reported, checkout, monkeypatch):
    """Questions that are not to be had, say."""
    before = {name: checksum(path) for name, path in files_below(checkout / "experiments").items()}

    def fail(*_):
        raise DataError("gone")

    monkeypatch.setattr(pull_request, "_write_training_data", fail)
    with pytest.raises(DataError, match="gone"):
        write_pull_request(finished.study, reported, checkout, "C02")
    assert {name: checksum(path) for name, path in files_below(checkout / "experiments").items()} == before


@pytest.mark.parametrize(("key", "whose"), [("source", "gsm8k.jsonl"), ("trait_answers", "word_problems")])
def test_questions_and_answers_of_others_are_left_out(finished, reported, checkout, key, whose):
    """Of what does not come with gradinoc the README says the name, and no question and no answer is written.

    They take the place of an export that had some, and that of a plan.
    """
    earlier = write_pull_request(finished.study, reported, checkout, "C04")
    (earlier / "02_results" / "frozen-plan.json").write_text("{}")
    data = finished.study.data.model_copy(update={key: "gsm8k.jsonl"})
    made = write_pull_request(finished.study.model_copy(update={"data": data}), reported, checkout, "C04")
    assert not (made / "01_training_data").exists()
    assert not (made / "02_results" / "frozen-plan.json").exists()
    text = (made / "README.md").read_text(encoding="utf-8").replace("\\", "")
    assert f"no training data: the questions are {whose}'s" in text


def test_command_says_what_git_needs(reported, checkout, capsys):
    """The commands that it prints make a commit of the folder; a prefix that is a path is refused."""
    assert main(["export", "pr", str(reported), str(checkout), "--prefix", "B07"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    identity = "git config user.name A && git config user.email a@example.org"
    subprocess.run(["sh", "-ec", "\n".join([lines[0], identity, *lines[1:]])], check=True, capture_output=True)
    told = subprocess.run(
        ["git", "log", "--stat", "--oneline"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"Add experiments/B07_small\n", told)
    assert main(["export", "pr", str(reported), str(checkout), "--prefix", "../x"]) == 2
