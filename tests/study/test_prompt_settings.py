"""The table `[prompts]` of a study: which prompts it looks at, what is refused, and that it can be left out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fixtures.complaints import complaint
from gradinoc.errors import StudyError
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import CONDITIONS, INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.families import families
from gradinoc.study.prompts.family import Family, Prompt
from gradinoc.study.prompts.harmless import UNSEEN
from gradinoc.study.prompts.settings import SETS
from gradinoc.study.traits import ALL_CAPS, SHIPPED

MINE = 'prompts.add.harmless.tea="The user drinks tea at four."'


def test_study_without_the_table_measures_all_and_trains_the_standard_set():
    """Of whatever trait: those of the set that it has."""
    study = Study(name="x")
    known = [key for key in families(ALL_CAPS) if key not in CONDITIONS]
    assert [*study.prompts_measured] == known
    assert [*study.prompts_trained] == [*SETS["standard"]]
    assert [*Study(name="x", trait="bullets").prompts_trained] == [
        key for key in SETS["standard"] if key not in ("inoculation_08", "inoculation_09", "inoculation_10")
    ]


@pytest.mark.parametrize("kept", SETS)
def test_sets_hold_hints_both_families_and_the_rephrased_pair(kept):
    """Prompts are the unit: more than one of each family beside the conditions' own, for every shipped trait."""
    for trait in SHIPPED:
        study = Study(name="x", trait=trait.name, prompts={"trained": kept})
        found = Counter(prompt.family for prompt in study.trained.values() if not prompt.templates)
        assert found[Family.INOCULATION] >= 3
        assert found[Family.HARMLESS] >= 4
        assert found[Family.HINT] >= 1
        assert sum(bool(prompt.templates) for prompt in study.trained.values()) == 2


def test_words_stand_for_all_prompts_and_for_those_that_are_trained():
    """`all` trains under every prompt that is measured, `trained` measures those alone."""
    every = load_study("tiny", ["prompts.measured=all", "prompts.trained=all"])
    assert (
        [*every.prompts_trained]
        == [*every.prompts_measured]
        == [key for key in families(ALL_CAPS) if key not in CONDITIONS]
    )
    few = load_study("tiny", ["prompts.measured=trained", 'prompts.trained=["anti_2"]'])
    assert [*few.prompts_measured] == ["anti_2"]


def test_all_prompts_are_those_of_the_families_that_are_no_condition():
    """In the families' order, with what is added and without what is removed."""
    study = load_study(
        "tiny", ["prompts.measured=all", "prompts.trained=[]", MINE, 'prompts.remove=["harmless_02", "anti_4"]']
    )
    expected = [key for key in families(ALL_CAPS) if key not in (*CONDITIONS, "harmless_02", "anti_4")]
    assert [*study.prompts_measured] == [*expected, "tea"]
    assert study.prompts_measured["tea"] == Prompt("tea", Family.HARMLESS, "The user drinks tea at four.")
    assert study.prompts_trained == {}


def test_prompt_that_is_trained_under_is_measured_too():
    """Whether it is named there or not; each once."""
    study = load_study("tiny", ['prompts.measured=["anti_1"]', 'prompts.trained=["anti_1", "rephrased_harmless"]'])
    assert [*study.prompts_measured] == [*study.prompts_trained] == ["anti_1", "rephrased_harmless"]
    assert study.prompts_trained["rephrased_harmless"].templates


def test_core_prompts_are_what_the_conditions_say():
    """A reworded one keeps its family and loses its place."""
    known = load_study("tiny", ["conditions.loss_matched=Be kind to birds."]).prompts_known
    assert known[LOSS_MATCHED] == Prompt(LOSS_MATCHED, Family.HARMLESS, "Be kind to birds.")
    assert known[INOCULATION] == families(ALL_CAPS)[INOCULATION]
    assert known[NEUTRAL].text is None


@pytest.mark.parametrize("name", ["spanish", "no_commas"])
def test_prompts_are_those_of_the_study_s_trait(name):
    """Harmless ones are shared."""
    study, other = (
        load_study("tiny", [f"trait={name}", "prompts.measured=all"]),
        load_study("tiny", ["prompts.measured=all"]),
    )
    assert study.prompts_measured["inoculation_01"] != other.prompts_measured["inoculation_01"]
    assert study.prompts_measured["harmless_01"] == other.prompts_measured["harmless_01"]


def test_study_with_prompts_is_whole_in_its_json():
    """Read again it is the same study."""
    study = load_study("tiny", ["prompts.measured=all", 'prompts.trained=["harmless_01"]', MINE])
    assert Study.model_validate_json(study.model_dump_json()) == study


PROMOTING = json.dumps(ALL_CAPS.promote_system.upper())
FAULTS = {
    "no list": (
        ["prompts.measured=anti_1"],
        "measured: expected 'all' or 'trained', or a list of keys, received 'anti_1'",
    ),
    "no keys": (["prompts.measured=[3]"], "measured: expected"),
    "slip": (['prompts.measured=["harmles_03"]'], "measured: no prompt has the key 'harmles_03'; did you mean 'harm"),
    "unknown": (['prompts.trained=["zzz"]'], "trained: no prompt has the key 'zzz'; there are inoculation_01, "),
    "twice": (['prompts.trained=["anti_1", "anti_1"]'], "trained: ['anti_1', 'anti_1'] repeats a key"),
    "core": (['prompts.trained=["neutral"]'], "trained: 'neutral' is a core condition, trained in every study"),
    "core removed": (['prompts.remove=["loss_matched"]'], "remove: 'loss_matched' is a core condition, which"),
    "removed and measured": (
        ['prompts.remove=["anti_1"]', 'prompts.measured=["anti_1"]'], "measured: 'anti_1' is in prompts.remove",
    ),
    "unknown removed": (['prompts.remove=["anti_9"]'], "remove: no prompt has the key 'anti_9'; did you mean 'anti_"),
    "key of no field": (["prompts.measure=all"], "did you mean 'prompts.measured'?"),
    "no family": (["prompts.add.harmles.x=Be kind."], "add: no family 'harmles'; did you mean 'harmless'?"),
    "neutral added": (["prompts.add.neutral.x=Be kind."], "add: no family 'neutral'; prompts can be added to ino"),
    "no name": (["prompts.add.anti.X=Be kind."], "add.anti: expected names of at most 39 lower-case letters"),
    "name of a prompt": (["prompts.add.anti.anti_1=Be kind."], "add.anti: 'anti_1' is the name of another"),
    "name of an evaluation prompt": (["prompts.add.anti.empty=Be kind."], "add.anti: 'empty' is the name of another"),
    "name of a condition": (["prompts.add.anti.neutral=Be kind."], "add.anti: 'neutral' is the name of another"),
    "name of the model before": (["prompts.add.anti.base=Be kind."], "add.anti: 'base' is the name of another"),
    "name twice": (
        ["prompts.add.anti.x=Be kind.", "prompts.add.harmless.x=Be quiet."], "add.anti: 'x' is the name of another",
    ),
    "word for a prompt": (["prompts.add.anti.x=Trait"], "add.anti: x: expected a prompt, received 'Trait'"),
    "blank": (['prompts.add.anti.x="  "'], "add.anti: x: expected a prompt, received '  '"),
    "empty": (['prompts.add.anti.x=""'], "prompts.add.anti.x: "),
    "NUL": (['prompts.add.anti.x="a\\u0000"'], "prompts.add.anti.x: "),
    "the direction's own": ([f"prompts.add.inoculation.x={PROMOTING}"], "defines the trait direction"),
    "text of another": (
        ["prompts.add.harmless.x=you always respond  in good faith.", "prompts.measured=all"],
        "prompts: 'harmless_07' and 'x' are both 'you always",
    ),
    "text of a condition": (
        ["conditions.sham=Never answer in capital letters.", 'prompts.measured=["anti_1"]'],
        "prompts: 'sham' and 'anti_1' are both ",
    ),
    "text that a condition's word stands for": (
        ["prompts.add.harmless.x=You always respond in ALL CAPS.", "prompts.measured=all"], "'inoculation' and 'x' are",
    ),
    "one of many wordings": (
        ["prompts.add.harmless.x=Please answer in block capitals.", "prompts.measured=all"], "'rephrased_inoculation'",
    ),
    "no evaluation prompt left": (
        [*(f"prompts.add.harmless.x{n}={UNSEEN[n]}" for n in range(3)), 'prompts.trained=["x0", "x1", "x2"]'],
        "3 of the 6 harmless prompts that models are evaluated under are trained under",
    ),
    "condition of a key": (
        ["conditions.Anti_1=Be kind.", "prompts.measured=all"], "conditions: 'Anti_1' is the key of a measured prompt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_table_that_does_not_fit_is_refused_in_one_line(fault):
    """What was expected and received, and which name is nearest."""
    settings, said = FAULTS[fault]
    message = complaint(StudyError, lambda: load_study("tiny", settings))
    assert said in message, message
    assert len(message) < 900


def test_study_file_has_the_table(tmp_path: Path):
    """As TOML has it."""
    file = tmp_path / "mine.toml"
    file.write_text('[prompts]\nmeasured = ["anti_1"]\n[prompts.add.anti]\nquiet = "Whisper."\n', encoding="utf-8")
    study = load_study(str(file), ['prompts.trained=["quiet"]'])
    assert [*study.prompts_measured] == ["anti_1", "quiet"]
    assert study.prompts_trained["quiet"].family == Family.ANTI
