"""A study is its process's own: what a launcher or user has set decides no number, and is there again afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.overrides import TorchFunctionMode

import gradinoc
from fixtures.small_study import SMALLEST, as_options, assert_same, tables
from fixtures.smallest import quick_collection
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
from gradinoc.models.machine.isolation import SETTINGS
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.store import Store
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[2]
Setting = AbstractContextManager[Any]

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


# --- what launchers leave in the environment

ENVIRONMENTS = {
    "torchrun, the second of two": {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29511", "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0",
    },
    "mixed precision": {"ACCELERATE_MIXED_PRECISION": "bf16"},
    "compilation": {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_DYNAMO_MODE": "max-autotune"},
    "FSDP": {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
    "DeepSpeed": {"ACCELERATE_USE_DEEPSPEED": "true"},
    "another device": {"ACCELERATE_TORCH_DEVICE": "meta"},
    "Slurm": {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"},
}  # fmt: skip


# --- what a user's notebook has set


@contextmanager
def switched(write: Callable[[Any], object], value: Any, before: Any) -> Iterator[None]:
    """A switch of the process, moved and moved back."""
    write(value)
    try:
        yield
    finally:
        write(before)


@contextmanager
def strict() -> Iterator[None]:
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Doubling(TorchFunctionMode):
    """Adds things up as nobody else does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Twice the sum."""
        found = func(*args, **(kwargs or {}))
        return 2 * found if func in (torch.sum, torch.Tensor.sum) else found


def with_attribute(holder: Any, name: str, value: Any) -> Setting:
    """An attribute of a module, set and set back."""
    return switched(lambda to: setattr(holder, name, to), value, getattr(holder, name))


USERS: dict[str, Callable[[], Setting]] = {
    "inference": torch.inference_mode,
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "a block on another device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "medium products": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "newer switch": lambda: with_attribute(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "without flash attention": lambda: switched(torch.backends.cuda.enable_flash_sdp, False, True),
    "small numbers are zero": lambda: switched(torch.set_flush_denormal, True, False),
    "a mode that changes sums": Doubling,
    "warnings are errors": strict,
    "seeds": lambda: switched(transformers.set_seed, 5, 0),
}


def settings() -> list[Any]:
    """Whatever of a process could be left changed."""
    return [
        *(setting.read() for setting in SETTINGS),
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_device(), torch.empty(1).device,
        torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.get_num_threads(),
        torch.get_rng_state().tolist() if torch.empty(1).device.type == "cpu" else None,
        random.getstate(), repr(np.random.get_state()),  # noqa: NPY002 - Trainer seeds the legacy generator
        np.geterr(), pd.get_option("mode.string_storage"), pd.get_option("display.precision"), list(warnings.filters),
        transformers.logging.get_verbosity(), dict(os.environ), torch.is_anomaly_enabled(),
    ]  # fmt: skip


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables of the environment, as a launcher leaves them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@contextmanager
def accelerator() -> Iterator[None]:
    """The user's own, which accumulates and keeps its precision, and goes on doing so."""
    own = Accelerator(gradient_accumulation_steps=4, mixed_precision="bf16", cpu=True)
    try:
        yield
        assert own.gradient_state.num_steps == 4
        assert (own.mixed_precision, own.state.mixed_precision, own.num_processes) == ("bf16", "bf16", 1)
        assert Accelerator(cpu=True).mixed_precision == "bf16"  # the next one is still like the first
    finally:
        own.gradient_state._reset_state()
        own.state._reset_state(reset_partial_state=True)


@contextmanager
def process_group() -> Iterator[None]:
    """A group of one process, which is there afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
            assert torch.distributed.is_initialized()
        finally:
            torch.distributed.destroy_process_group()


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
