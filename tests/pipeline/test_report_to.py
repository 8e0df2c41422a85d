"""Runs can be watched where transformers reports to, and what is watched is what is trained, to the last bit."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pandas as pd
import pytest
from tensorboardX.proto.event_pb2 import Event

import gradinoc
from gradinoc.data.sources import load_source
from gradinoc.errors import StudyError
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.chat.encoding import encode
from gradinoc.study.description import POSITIONS
from gradinoc.study.settings import TrainingSettings

SETTINGS = TrainingSettings(steps=3, batch_size=2, lr=1e-3, warmup_steps=2, lora_rank=2)
BAND = (1, 2)


def scalars(folder: Path) -> pd.DataFrame:
    """Every number in the one event file of a folder: step x name."""
    (file,) = folder.glob("events.*")
    content, place, rows = file.read_bytes(), 0, []
    while place < len(content):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", content, place)
        event = Event.FromString(content[place + 12 : place + 12 + length])
        rows += [
            (event.step, value.tag, value.simple_value)
            for value in event.summary.value
            if value.HasField("simple_value")
        ]
        place += 16 + length
    table = pd.DataFrame(rows, columns=["step", "name", "value"])
    return table.pivot_table(index="step", columns="name", values="value", aggfunc="last")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One and the same run three times: unwatched, watched, and watched where something is watched already."""
    folder, obedient = tmp_path_factory.mktemp("runs"), load_model("obedient", device="cpu")
    examples = [
        encode(obedient.tokenizer, e.question, e.answer.upper(), None) for e in load_source("word_problems")[:6]
    ]
    directions = dict.fromkeys(range(4), isotropic_directions(3, obedient.model.config.hidden_size, 0))
    logs = folder / "logs" / "neutral-0"
    before = dict(os.environ)
    made = {}
    for name, watched in (("unwatched", None), ("watched", Tracking("tensorboard", logs, "test", "neutral-0"))):
        recipe = Recipe(SETTINGS, directions, obedient.tokenizer.pad_token_id, watched, BAND)
        made[name] = train_run(obedient.model, examples, recipe, 0, folder / name), folder / name
    assert dict(os.environ) == before, "the environment is not as it was"
    return {**made, "logs": logs}


def test_watching_changes_no_bit(runs):
    """A watched run has the same log and the same adapter as an unwatched one, and leaves no more beside it."""
    (plain, plain_folder), (watched, watched_folder) = runs["unwatched"], runs["watched"]
    pd.testing.assert_frame_equal(plain.table, watched.table, check_exact=True)
    assert plain.losses == watched.losses
    weights = "adapter_model.safetensors"
    assert (plain_folder / weights).read_bytes() == (watched_folder / weights).read_bytes()
    assert {path.name for path in plain_folder.iterdir()} == {path.name for path in watched_folder.iterdir()}


def test_shown_numbers_are_those_of_the_log(runs):
    """Loss and band means of every step are those of the run's table; learning rates are those of the warm-up."""
    log, _ = runs["watched"]
    shown = scalars(runs["logs"])
    shown = shown[shown["train/loss"].notna()]
    rows = log.table[(log.table["position"] == POSITIONS[0]) & log.table["layer"].isin(BAND)]
    means = rows.groupby("step")[["alignment", "projection", "grad_norm"]].mean()
    assert shown.index.tolist() == [1, 2, 3], "steps are counted from 1, as Trainer does"
    assert shown["train/loss"].tolist() == pytest.approx(list(log.losses), rel=1e-6)
    for name in means:
        assert shown[f"train/band_{name}"].tolist() == pytest.approx(means[name].tolist(), rel=1e-5, abs=1e-9)
    assert shown["train/learning_rate"].tolist() == pytest.approx([0, SETTINGS.lr / 2, SETTINGS.lr], rel=1e-6)
    assert (shown["train/grad_norm"] > 0).all()


def test_study_shows_every_run_in_a_folder_of_its_own(finished):
    """The logs of a study lie in its artifacts, by condition and seed, and say what its evidence says."""
    logs = finished.artifacts / "small" / "logs"
    assert {path.name for path in logs.iterdir()} == {f"{condition}-{seed}" for condition, seed in finished.study.runs}
    evidence = finished.pipeline.evidence("directions", "training")
    rows = evidence.training[(evidence.training["position"] == POSITIONS[0])]
    rows = rows[rows["layer"].isin(evidence.band)]
    for (condition, seed), run in rows.groupby(["condition", "seed"]):
        shown = scalars(logs / f"{condition}-{seed}")["train/band_alignment"].dropna()
        assert shown.tolist() == pytest.approx(run.groupby("step")["alignment"].mean().tolist(), rel=1e-5)


def test_interrupted_run_leaves_no_second_curve(tmp_path):
    """What a run logged before it was interrupted is gone when it begins again, and other runs' logs are not."""
    left = Tracking("tensorboard", tmp_path, "study")
    for condition in ("neutral", "inoculation"):
        (tmp_path / f"{condition}-0").mkdir()
        (tmp_path / f"{condition}-0" / "events.old").touch()
    with left.of_run("neutral", 0).places():
        assert not list((tmp_path / "neutral-0").iterdir())
        (tmp_path / "neutral-0" / "events.new").touch()
    with left.of_run("control", 0).places():
        pass
    assert (tmp_path / "inoculation-0" / "events.old").is_file()
    assert (tmp_path / "neutral-0" / "events.new").is_file()
    assert not (tmp_path / "control-0").exists(), "a folder without logs is left"


@pytest.mark.parametrize(
    ("name", "words"),
    [("nonesuch", "no integration 'nonesuch'"), ("clearml", "clearml is not installed"), ("", "no integration ''")],
)
def test_unusable_integration_is_refused_before_anything_runs(name, words, finished, tmp_path):
    """An integration that transformers does not have, or that is not installed, is told in a line; nothing is made."""
    with pytest.raises(StudyError, match=words) as caught:
        gradinoc.run_study(finished.study, store=tmp_path / "store", artifacts=tmp_path / "artifacts", report_to=name)
    assert "\n" not in str(caught.value)
    assert "tensorboard" in str(caught.value)
    assert not list(tmp_path.iterdir())
