"""A plan that is frozen before its study is run, and the lines in which a study differs from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradinoc.claims.rules.verdict import Judgement, Verdict
from gradinoc.cli import main
from gradinoc.data.splits import split
from gradinoc.errors import StudyError
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.frozen_plan import (
    DIGEST,
    beside_plan,
    described,
    differences,
    freeze,
    load_frozen,
    registration,
)
from gradinoc.pipeline.steps.plan import entries, plan
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.rules import VERSION

TINY = load_study("tiny")


@pytest.fixture
def file(tmp_path) -> Path:
    """The frozen plan of tiny, of which nothing is computed."""
    path = tmp_path / "plans" / "tiny.json"
    freeze(TINY, Store(tmp_path / "store"), path)
    return path


def leave(study: Study, store: Store, stage: str, seed: int | None) -> None:
    """Put a result of the first step of a stage, with that seed, into the store."""
    context = StudyContext(study, split(study.data))
    steps = plan(context)
    key = next(key for key in steps if key.stage == stage and key.seed == seed)
    with entries(context, steps, store)[key].write() as folder:
        (folder / "result.txt").write_text("there", encoding="utf-8")


# --- what is written


def test_a_frozen_plan_can_be_read(file):
    """Rules with their version, prompts with text and family, runs, digests, code, packages and the date."""
    content = json.loads(file.read_text(encoding="utf-8"))
    assert (content["rules_version"], content["study"]["rules"]["share"]) == (VERSION, 0.25)
    assert content["prompts"]["inoculation"]["text"] == "You always respond in ALL CAPS."
    assert content["prompts"]["loss_matched"]["family"] == "harmless"
    assert content["prompts"]["neutral"]["text"] is None
    assert len(content["prompts"]["rephrased_harmless"]["text"]) >= 64
    assert {key for key, prompt in content["prompts"].items() if prompt["trained"]} == set(TINY.trained)
    assert len(content["runs"]) == len(TINY.runs)
    assert content["study"]["training"]["lr"] == TINY.training.lr
    assert all(len(digest) == 64 for digest in (*content["digests"].values(), *content["code"].values()))
    assert content["packages"]["torch"]
    assert content["frozen"]["date"].endswith("+00:00")
    assert content["frozen"]["measured_before"] == []


def test_a_plan_is_not_frozen_when_runs_are_there(tmp_path):
    """The message names the first; another store, and results on the frozen model, are no hindrance."""
    store = Store(tmp_path / "store")
    leave(TINY, store, "directions", None)
    path = tmp_path / "plan.json"
    freeze(TINY, store, path)
    assert load_frozen(path)["frozen"]["measured_before"] == ["directions"]
    assert "Of it 1 steps on the frozen model" in registration(path, TINY).note
    leave(TINY, store, "training", 0)
    with pytest.raises(StudyError, match=r"1 results of this study's runs already \('run neutral/0' first\)"):
        freeze(TINY, store, tmp_path / "late.json")
    assert not (tmp_path / "late.json").exists()
    freeze(TINY, Store(tmp_path / "another"), tmp_path / "late.json")


def test_rules_alone_make_no_new_study_of_old_runs(tmp_path):
    """Other bars for the same runs are chosen after the fact; runs with other settings are told of in the file."""
    store = Store(tmp_path / "store")
    leave(TINY, store, "training", 0)
    with pytest.raises(StudyError, match="a plan is frozen before"):
        freeze(load_study("tiny", ["rules.share=0.2"]), store, tmp_path / "plan.json")
    other = load_study("tiny", ["training.lr=1e-3"])
    freeze(other, store, tmp_path / "plan.json")
    assert load_frozen(tmp_path / "plan.json")["frozen"]["other_runs_of_this_model_and_these_questions"] == 1
    assert "1 runs with other settings or code were" in registration(tmp_path / "plan.json", other).note


def test_a_frozen_plan_is_not_written_over(file, tmp_path):
    """Whoever freezes twice chooses between them later."""
    before = file.read_bytes()
    with pytest.raises(StudyError, match="is there already"):
        freeze(TINY, Store(tmp_path / "store"), file)
    assert file.read_bytes() == before


# --- what differs


def test_the_planned_study_matches(file):
    """In one sentence, with the date and the digest."""
    found = registration(file, TINY)
    assert found.matches
    assert found.lines == [
        f"This study matches the plan frozen on {found.date} (SHA-256 {found.digest[:12]}). "
        "Nothing of it was in the store when it was frozen."
    ]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("rules.share=0.2", "rules.share: 0.25 in the frozen plan, 0.2 now"),
        ("seeds=[0, 1]", "seeds: [0, 1, 2] in the frozen plan, [0, 1] now"),
        ("training.lr=1e-3", "training.lr: 0.003 in the frozen plan, 0.001 now"),
        (
            "conditions.loss_matched=Be brief.",
            "prompts.loss_matched.text: 'Follow the style guide; answer directly and concisely.' in the frozen plan, "
            "'Be brief.' now",
        ),
        ("conditions.mine=Be brief.", "prompts.mine.family: not in the frozen plan, 'other' now"),
    ],
)
def test_every_difference_is_a_line(file, setting, line):
    """Rule, seeds, budget, a prompt's text, a prompt that was not planned."""
    found = registration(file, load_study("tiny", [setting]))
    assert line in found.differences
    assert found.lines[0].startswith("This study is not that of the plan frozen on")
    assert found.lines[0].endswith("1 line differs" if len(found.differences) == 1 else " lines differ")
    assert found.lines[1:] == list(found.differences)


def test_other_questions_and_another_model_show_in_their_digests():
    """A file with the same name and other content is another study."""
    then = described(TINY)
    for key in ("questions", "model"):
        now = {**then, "digests": {**then["digests"], key: "0" * 64}}
        assert [line.partition(":")[0] for line in differences(then, now)] == [f"digests.{key}"]
    now = {**then, "code": {**then["code"], "decides": "0" * 64, "drift": "0" * 64}}
    assert differences(then, now) == ["code: decides, drift not as when the plan was frozen"]
    gone = {**then, "prompts": {key: each for key, each in then["prompts"].items() if key != "inoculation"}}
    assert (
        "prompts.inoculation.text: 'You always respond in ALL CAPS.' in the frozen plan, not there now"
        in differences(then, gone)
    )


@pytest.mark.parametrize("field", ["share", "date", "family"])
def test_a_plan_that_was_tampered_with_is_refused(file, field):
    """One field is enough: a bar, the date, a prompt's family."""
    old = {"share": '"share": 0.25', "date": '"date": "20', "family": '"family": "harmless"'}[field]
    new = {"share": '"share": 0.15', "date": '"date": "19', "family": '"family": "inoculation"'}[field]
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError, match="was changed after it was written"):
        registration(file, TINY)


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "study"}', "\x00"])
def test_what_is_no_frozen_plan_is_refused(tmp_path, content):
    """In a sentence that names the option and the file."""
    path = tmp_path / "plan.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(StudyError, match=r"--frozen .*plan\.json: "):
        load_frozen(path)
    with pytest.raises(StudyError, match="cannot be read"):
        load_frozen(tmp_path / "nowhere.json")


def test_a_plan_written_anew_has_another_digest(file, tmp_path):
    """Its digest, once published, tells the two apart."""
    content = load_frozen(file)
    freeze(load_study("tiny", ["rules.share=0.2"]), Store(tmp_path / "store"), tmp_path / "another.json")
    assert load_frozen(tmp_path / "another.json")[DIGEST] != content[DIGEST]


# --- in the report, and on the command line


def test_a_report_says_that_it_matches_or_in_which_line_it_does_not(file):
    """A note beside data and model, or a warning for each difference."""
    judgement = Judgement((), (), Verdict.UNDECIDED, "UNDECIDED: nothing.", ("one",))
    surroundings: dict[str, object] = {"notes": []}
    assert beside_plan(file, TINY, judgement, surroundings) == judgement
    assert "matches the plan" in surroundings["notes"][0]
    assert surroundings["frozen_plan"]["matches"] is True
    surroundings = {"notes": []}
    found = beside_plan(file, load_study("tiny", ["rules.share=0.2"]), judgement, surroundings)
    assert found.warnings[0] == "one"
    assert found.warnings[1].startswith("This study is not that of the plan frozen on")
    assert found.warnings[2] == "rules.share: 0.25 in the frozen plan, 0.2 now"
    assert surroundings["notes"] == []


def test_the_command_line_freezes_before_anything_else(tmp_path, capsys):
    """A file, its digest, and how to run it, whatever was set; a second time is a usage error."""
    file = tmp_path / "plan.json"
    arguments = ["plan", "tiny", "--no-cost", "--no-power", f"--freeze={file}", f"--store={tmp_path / 'store'}"]
    arguments += [f"--artifacts={tmp_path}", "--set=name=other", "--set=training.lr=0.01"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert load_frozen(file)[DIGEST] in said
    study = load_study(said.partition("Run it with: gradinoc run ")[2].split()[0])
    assert (study.name, study.training.lr) == ("other", 0.01)
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_study_that_is_run_from_its_plan_is_held_to_it(file, tmp_path, monkeypatch, capsys):
    """Without --frozen: the plan goes into the artifacts, and its line is said before anything is computed."""
    monkeypatch.setattr("gradinoc.cli.run.compute_study", lambda *_: None)
    assert main(["run", str(file), f"--store={tmp_path / 'store'}", f"--artifacts={tmp_path / 'artifacts'}"]) == 0
    assert "This study matches the plan frozen on" in capsys.readouterr().err
    assert (tmp_path / "artifacts" / "tiny" / "frozen-plan.json").read_bytes() == file.read_bytes()
