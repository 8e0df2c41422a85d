"""A study is its process's own: what a launcher or user has set decides no number, and is there again afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

import gradinoc
from fixtures.small_study import SMALLEST, as_options, assert_same, tables
from fixtures.smallest import quick_collection
from fixtures.surroundings import ENVIRONMENTS, USERS, accelerator, environment, process_group, settings
from gradinoc.data.export import write_chat
from gradinoc.data.sources import load_source
from gradinoc.errors import DeviceError
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.arguments import ensure_trainable
from gradinoc.measure.training.trainer import GradientLoggingTrainer
from gradinoc.models.chat.encoding import encode, encode_prompt
from gradinoc.models.generate import generate
from gradinoc.models.machine.device import precision_overrides
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[2]

# --- what a process computes, from loading to generation


@pytest.fixture(scope="module", autouse=True)
def _quick_collection():
    with quick_collection():
        yield


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    """A chat file of a few word problems."""
    path = tmp_path_factory.mktemp("questions") / "train.jsonl"
    examples = load_source("word_problems")[:6]
    write_chat(path, [(example.question, example.answer.upper()) for example in examples])
    return path


def numbers(questions: Path, folder: Path) -> dict[str, Any]:
    """All that the public functions compute of a model: trained, measured, scored and generated."""
    loaded = load_model("obedient", device="cpu")
    model, tokenizer, pad = loaded.model, loaded.tokenizer, int(loaded.tokenizer.pad_token_id)
    examples = load_source("word_problems")[:4]
    encoded = [encode(tokenizer, example.question, example.answer, None) for example in examples]
    texts = [example.question for example in examples]
    trait = gradinoc.extract_trait_direction(model, tokenizer, texts, "Shout.", "Whisper.", [0, 1])
    trained = gradinoc.train_with_gradient_logging("obedient", questions, None, trait, folder, batch_size=3, lr=1e-3)
    measured = measure_alignments(model, encoded, {layer: row[None] for layer, row in trait.items()}, pad)
    prompts = [encode_prompt(tokenizer, text, None) for text in texts]
    return {
        "loaded": dict(model.state_dict()),
        "trait": trait,
        "adapter": (folder / "adapter" / "adapter_model.safetensors").read_bytes(),
        "log": trained["log"].to_dict("list"),
        "losses": trained["losses"],
        "measured": measured.table.to_dict("list"),
        "means": measured.means,
        "scored": answer_losses(model, encoded, pad, 2),
        "responses": generate(model, tokenizer, prompts, 6, 2),
    }


def assert_equal(one: Any, other: Any) -> None:
    """The same numbers to the last bit, and of the same kind."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.device) == (other.dtype, other.device)
        assert torch.equal(one, other)
        assert not one.is_inference()
    else:
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def expected(questions, tmp_path_factory) -> dict[str, Any]:
    """The numbers of a process in which nothing is set."""
    return numbers(questions, tmp_path_factory.mktemp("expected"))


def cases() -> Iterator[Any]:
    """Every setting, marked with its kind of fault."""
    launchers = {name: lambda variables=variables: environment(variables) for name, variables in ENVIRONMENTS.items()}
    for kind, choices in (
        ("a launcher's environment", launchers),
        ("a setting of the user's own", USERS),
        ("an Accelerator of the user's own", {"accelerator": accelerator}),
        ("a process group of the user's own", {"process group": process_group}),
    ):
        for name, setting in choices.items():
            yield pytest.param(setting, marks=pytest.mark.fault("Surroundings", kind), id=name)


@pytest.mark.parametrize("setting", list(cases()))
def test_surroundings_decide_no_number(setting, questions, expected, tmp_path):
    """Every number is that of a process in which nothing is set, and the setting is in force again afterwards."""
    with setting():
        before = settings()
        found = numbers(questions, tmp_path)
        assert settings() == before
    assert_equal(found, expected)


@pytest.mark.fault("Surroundings", "a whole study in a notebook that has set everything")
def test_study_in_a_notebook_that_has_set_everything(finished, tmp_path, monkeypatch):
    """From the first look at the data to the report: the tables are those of a process in which nothing is set."""
    for name, value in {**ENVIRONMENTS["torchrun, the second of two"], **ENVIRONMENTS["mixed precision"]}.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    with USERS["inference"](), USERS["float64"](), USERS["a block on another device"](), np.errstate(all="raise"):
        result = gradinoc.run_study("tiny", settings=SMALLEST, store=tmp_path / "store", artifacts=tmp_path / "made")
    assert result.report.is_file()
    assert torch.get_num_threads() == threads
    assert_same(tables(tmp_path / "store", SMALLEST), tables(finished.store, SMALLEST))


@pytest.mark.parametrize(("name", "value"), [("distributed_type", DistributedType.XLA), ("num_processes", 2)])
def test_training_that_would_not_be_its_own_is_refused_beforehand(name, value, monkeypatch):
    """Where accelerate sees other hardware or processes in spite of all, one line says so before anything is done."""
    original = PartialState.__init__

    def elsewhere(self: PartialState, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        setattr(self, name, value)

    monkeypatch.setattr(PartialState, "__init__", elsewhere)
    with pytest.raises(DeviceError, match=str(getattr(value, "value", value))):
        ensure_trainable(torch.device("cpu"))


# --- threads and event loops


@pytest.mark.fault("Surroundings", "a running event loop")
def test_training_inside_a_running_event_loop(questions, expected, tmp_path):
    """As in every notebook."""

    async def cell() -> dict[str, Any]:
        return numbers(questions, tmp_path)

    assert_equal(asyncio.run(cell()), expected)


@pytest.mark.fault("Surroundings", "threads that train side by side")
def test_threads_that_train_side_by_side(questions, expected, tmp_path):
    """Each gets the numbers of a process of its own, though generators and accelerate's records are shared by all."""
    found: dict[int, Any] = {}

    def work(place: int) -> None:
        torch.set_num_threads(1)
        found[place] = numbers(questions, tmp_path / str(place))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for each in found.values():
        assert_equal(each, expected)


# --- an exception amid a run


@pytest.mark.parametrize("where", ["compute_loss", "create_optimizer"])
@pytest.mark.fault("Surroundings", "an exception amid a run")
def test_exception_amid_a_run_leaves_process_and_model_as_they_were(where, questions, expected, tmp_path, monkeypatch):
    """Environment, switches, records and generators are put back, and the next run gets the numbers of the first."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(GradientLoggingTrainer, where, lambda *_args, **_named: 1 / 0)
    with torch.inference_mode():
        before = settings()
        with pytest.raises(ZeroDivisionError):
            numbers(questions, tmp_path / "broken")
        assert settings() == before
    assert PartialState._shared_state == {}
    monkeypatch.undo()
    assert_equal(numbers(questions, tmp_path / "sound"), expected)


# --- torchrun


@pytest.mark.exhaustive
@pytest.mark.fault("Surroundings", "torchrun with two processes")
def test_processes_of_torchrun_are_workers_of_one_study(finished, tmp_path):
    """They share the steps, train by themselves, and the tables are those of one process that was started by hand."""
    launched = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "-m", "gradinoc",
            "run", "tiny", *as_options(SMALLEST), "--store", str(tmp_path / "store"),
            "--artifacts", str(tmp_path / "made"),
        ],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert launched.stdout.count("Every step of study small is in") == 2
    assert_same(tables(tmp_path / "store", SMALLEST), tables(finished.store, SMALLEST))


# --- what cannot be undone is an input


def test_precision_that_cannot_be_undone_is_an_input_of_every_step(tmp_path, monkeypatch):
    """Libraries beneath torch read a few variables of their own: a study under them is another one, and says so."""
    monkeypatch.setitem(precision_overrides.__globals__["OVERRIDES"], "cpu", ("SOME_OVERRIDE",))

    def keys() -> set[str]:
        study = load_study("tiny", SMALLEST)
        return {entry.key for entry in Pipeline(study, Store(tmp_path)).entries.values()}

    plain = keys()
    monkeypatch.setenv("SOME_OVERRIDE", "1")
    assert not plain & keys()
    monkeypatch.delenv("SOME_OVERRIDE")
    assert plain == keys()
