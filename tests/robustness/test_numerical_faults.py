"""A number that is not finite stops the work where it arises, named by step, layer and example."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

from gradinoc.claims.finding import Status
from gradinoc.claims.tables import BEFORE, COLUMNS, SCORED, Evidence
from gradinoc.claims.verdict import Judgement, Verdict, judge
from gradinoc.data.sources import load_source
from gradinoc.errors import NumericalError
from gradinoc.measure.alignment import answer_losses, measure_alignments
from gradinoc.measure.directions import isotropic_directions, prompt_activations
from gradinoc.measure.load import LanguageModel, load_model
from gradinoc.measure.training import trainer
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.measure.training.trainer import save_adapter
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode
from gradinoc.models.generate import generate
from gradinoc.pipeline import run as pipeline_module
from gradinoc.pipeline.store import Store
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import bare
from gradinoc.study.description import TrainingSettings
from gradinoc.study.loading import load_study
from gradinoc.study.rules import Rules

FAMILY = "Numerical faults"
COUNT, STEPS, BATCH = 6, 4, 2
BAD = {"NaN": math.nan, "infinity": math.inf}
ONE_BY_ONE = [0, *(pytest.param(step, marks=pytest.mark.exhaustive) for step in range(1, STEPS - 1)), STEPS - 1]
BOTH = [pytest.param(math.nan, id="NaN"), pytest.param(math.inf, id="infinity", marks=pytest.mark.exhaustive)]


@pytest.fixture(scope="module", params=["fused", "plain"])
def model(request) -> LanguageModel:
    """The obedient tiny model with either kernels; each test hands it back as it came."""
    return load_model("obedient", device="cpu", kernels=request.param)


@pytest.fixture(scope="module")
def fused() -> LanguageModel:
    """The obedient tiny model as a study has it."""
    return load_model("obedient", device="cpu")


def encoded(language_model):
    """A few word problems with answers in capitals, ordered by length: the first of a batch is the first of them."""
    tokenizer = language_model.tokenizer
    found = [encode(tokenizer, e.question, e.answer.upper()) for e in load_source("word_problems")[:COUNT]]
    return sorted(found, key=lambda example: len(example.ids))


def directions(language_model):
    """Two directions a layer."""
    found = isotropic_directions(2, language_model.model.config.hidden_size, 0)
    return dict.fromkeys(range(len(decoder_blocks(language_model.model))), found)


@contextmanager
def poisoned(language_model, layer: int, call: int, poison: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """The output of a decoder block is put through `poison` in the `call`-th forward pass, from 0, and in no other.

    Under gradient checkpointing, or where a message looks for the origin, later passes are as they would have been: the
    fault stays in the numbers, not in the model. So the block is poisoned from that pass on.
    """
    seen = 0

    def hook(_block, _inputs, output):
        nonlocal seen
        seen += 1
        if seen <= call:
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        changed = poison(hidden)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = decoder_blocks(language_model.model)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def first_token(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sets the first token of the first example to `value`: causal attention carries it through that example alone."""

    def poison(hidden):
        changed = hidden.clone()
        changed[0, 0] = value
        return changed

    return poison


def gradient(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Leaves the activation alone, and multiplies its gradient."""

    def poison(hidden):
        changed = hidden.clone()
        if changed.requires_grad:
            changed.register_hook(lambda grad: grad * value)
        return changed

    return poison


def train(language_model, folder, **settings):
    """A run of a few steps; `settings` are not checked."""
    recipe = Recipe(
        TrainingSettings(steps=STEPS, batch_size=BATCH, lora_rank=2).model_copy(update=settings),
        directions(language_model),
        language_model.tokenizer.pad_token_id,
    )
    return train_run(language_model.model, encoded(language_model), recipe, 0, folder / "adapter")


def complaint(work: Callable[[], object]) -> str:
    """What is said where a number is not finite: one line."""
    with pytest.raises(NumericalError) as caught:
        work()
    said = str(caught.value)
    assert "\n" not in said
    return said


# --- training


@pytest.mark.fault(FAMILY, "NaN in training on a device that numbers are fetched from now and then")
@pytest.mark.parametrize("step", ONE_BY_ONE)
@pytest.mark.parametrize("kind", ["activation", "gradient"])
def test_fault_that_is_seen_later_is_told_as_it_was(fused, tmp_path, monkeypatch, step, kind):
    """As on CUDA: nobody looks before the end, and the step that is named is the one in which it arose."""
    monkeypatch.setattr(trainer, "AT_ONCE", ())
    monkeypatch.setattr(trainer, "EVERY_SECONDS", 3600.0)
    poison = first_token(math.nan) if kind == "activation" else gradient(math.nan)
    with poisoned(fused, 1, step, poison):
        said = complaint(lambda: train(fused, tmp_path))
    what = (
        r"the loss of example \d is nan"
        if kind == "activation"
        else r"the gradient at layer 1, \w+, of examples \d, \d"
    )
    assert re.match(rf"Step {step + 1} of 4: {what}", said), said
    assert ("the run diverged" in said) == (step > 0)


@pytest.mark.fault(FAMILY, "a checkpoint after a step whose numbers failed unseen")
def test_checkpoint_is_not_taken_of_a_failed_step(fused, tmp_path, monkeypatch):
    """The step is named, not the adapter that came of it."""
    monkeypatch.setattr(trainer, "AT_ONCE", ())
    monkeypatch.setattr(trainer, "EVERY_SECONDS", 3600.0)
    recipe = Recipe(
        TrainingSettings(steps=STEPS, batch_size=BATCH, lora_rank=2), directions(fused), fused.tokenizer.pad_token_id
    )
    with poisoned(fused, 1, 1, first_token(math.nan)):
        said = complaint(
            lambda: train_run(fused.model, encoded(fused), recipe, 0, tmp_path / "a", None, {3: tmp_path / "b"})
        )
    assert said.startswith("Step 2 of 4: the loss of example ")
    assert not (tmp_path / "b").exists()


@pytest.mark.fault(FAMILY, "NaN or infinity in an activation during training")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize("step", ONE_BY_ONE)
@pytest.mark.parametrize("layer", [pytest.param(0, marks=pytest.mark.exhaustive), 2])
def test_activation_in_training_names_step_layer_and_examples(model, tmp_path, layer, step, value):
    """The run stops in that very step; no adapter is left, and the model is handed back as it came."""
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    with poisoned(model, layer, step, first_token(value)):
        said = complaint(lambda: train(model, tmp_path))
    at, examples, where = re.match(
        r"Step (\d) of 4: the loss of (examples? [\d, ]+) is nan, first not finite in the output of layer (\d)", said
    ).groups()
    assert (int(at), int(where)) == (step + 1, layer)
    assert examples.startswith("example ")  # the other example of the batch is sound
    assert ("the run diverged" in said) == (step > 0)
    assert list((tmp_path / "adapter").iterdir()) == []
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


@pytest.mark.fault(FAMILY, "NaN or infinity in a gradient of the residual stream during training")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize("step", ONE_BY_ONE)
@pytest.mark.parametrize("layer", [pytest.param(0, marks=pytest.mark.exhaustive), 2])
def test_gradient_in_training_names_step_layer_and_examples(model, tmp_path, layer, step, value):
    """The loss is sound; the uppermost layer whose gradient is not is named."""
    with poisoned(model, layer, step, gradient(value)):
        said = complaint(lambda: train(model, tmp_path))
    expected = rf"Step {step + 1} of 4: the gradient at layer {layer}, \w+, of examples \d, \d is not finite"
    assert re.match(expected, said), said


@pytest.mark.fault(FAMILY, "a gradient of the residual stream that is zero")
def test_gradient_that_is_zero_has_no_direction(fused, tmp_path):
    """Its alignment would be 0/0."""
    with poisoned(fused, 1, 1, gradient(0.0)):
        assert "of examples" in (said := complaint(lambda: train(fused, tmp_path)))
    assert re.match(r"Step 2 of 4: the gradient at layer 1, .* is zero, which has no direction", said)


@pytest.mark.fault(FAMILY, "NaN or infinity in the gradient of an adapter's weight")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize("step", ONE_BY_ONE)
def test_gradient_of_the_adapter_stops_the_step(model, tmp_path, step, value):
    """Clipping would make every weight NaN: nothing is learned from it, in the last step neither."""

    def spoil(hidden):
        weights = [w for w in decoder_blocks(model.model)[1].parameters() if w.requires_grad]
        weights[0].register_hook(lambda grad: grad * value)
        return hidden

    with poisoned(model, 1, step, spoil):
        said = complaint(lambda: train(model, tmp_path))
    assert re.match(rf"Step {step + 1} of 4: the gradient of the adapter's weights after examples \d, \d is not", said)


@pytest.mark.fault(FAMILY, "an adapter with a weight that is not finite")
@pytest.mark.parametrize("value", BOTH)
def test_adapter_that_is_not_finite_is_never_written(fused, tmp_path, monkeypatch, value):
    """Neither at the end nor at a checkpoint: what is in the store can be loaded and gives numbers."""
    written = []

    class Stub(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A = torch.nn.Parameter(torch.tensor([0.0, value]))

        def save_pretrained(self, folder):
            written.append(folder)

    said = complaint(lambda: save_adapter(Stub(), tmp_path / "3"))
    assert said.startswith("The adapter for '3' is not finite in 1 of its weights (lora_A first)")
    assert written == []


@pytest.mark.fault(FAMILY, "a direction that is not finite")
@pytest.mark.parametrize(("row", "said_of"), [(0, "an alignment at layer 2"), (1, "an alignment with a random one")])
def test_direction_that_is_not_finite_is_noticed(fused, tmp_path, row, said_of):
    """Its alignment would be NaN with every gradient."""
    axes = {layer: rows.clone() for layer, rows in directions(fused).items()}
    axes[2][row, 5] = math.nan
    recipe = Recipe(TrainingSettings(steps=1, batch_size=BATCH), axes, fused.tokenizer.pad_token_id)
    said = complaint(lambda: train_run(fused.model, encoded(fused), recipe, 0, tmp_path))
    assert said.startswith(f"Step 1 of 1: {said_of} is not finite")


@pytest.mark.fault(FAMILY, "a run that diverges by its learning rate")
def test_diverging_run_says_so_and_what_to_do(model, tmp_path):
    """A rate beyond all measure: the first step is sound, the next is not."""
    said = complaint(lambda: train(model, tmp_path, lr=1e38))
    assert said.startswith("Step 2 of 4: the loss of examples ")
    assert "the run diverged (loss " in said
    assert said.endswith("lower training.lr (1e+38) or raise training.warmup_steps (0)")


# --- the frozen model


@pytest.mark.fault(FAMILY, "NaN or infinity in an activation of the frozen model")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize("layer", [pytest.param(0, marks=pytest.mark.exhaustive), 2])
@pytest.mark.parametrize("measure", ["alignments", "losses"])
def test_activation_of_the_frozen_model_names_layer_and_example(model, measure, layer, value):
    """In the second batch, whose first example is the third."""
    examples, pad = encoded(model), model.tokenizer.pad_token_id
    work = {
        "alignments": lambda: measure_alignments(model.model, examples, directions(model), pad, BATCH),
        "losses": lambda: answer_losses(model.model, examples, pad, BATCH),
    }[measure]
    sound = work()
    with poisoned(model, layer, 1, first_token(value)):
        said = complaint(work)
    if measure == "alignments" or model.notes[-1] == "plain modules, as asked":
        assert said.startswith("the loss of example 2 is nan"), said
    else:  # what examples begin with is computed once, so that a fault there is in all that share it
        assert re.match(r"the loss of examples? \d", said), said
    assert f"first not finite in the output of layer {layer}" in said
    again = work()
    if measure == "losses":
        np.testing.assert_array_equal(again, sound)
    else:
        pd.testing.assert_frame_equal(again.table, sound.table)


@pytest.mark.fault(FAMILY, "NaN or infinity in a gradient of the frozen model")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize("layer", [pytest.param(1, marks=pytest.mark.exhaustive), 3])
def test_gradient_of_the_frozen_model_names_layer_and_examples(model, layer, value):
    """The last batch is poisoned; the layers above are sound."""
    pad = model.tokenizer.pad_token_id
    with poisoned(model, layer, 2, gradient(value)):
        said = complaint(lambda: measure_alignments(model.model, encoded(model), directions(model), pad, BATCH))
    assert re.match(rf"the gradient at layer {layer}, \w+, of examples 4, 5 is not finite", said), said


@pytest.mark.fault(FAMILY, "NaN or infinity in the activation from which a direction is found")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize("layer", [pytest.param(0, marks=pytest.mark.exhaustive), 3])
def test_activation_of_a_direction_names_layer_and_prompt(model, layer, value):
    """The mean over prompts would be NaN, and with it the direction."""
    prompts = [f"What is {number} and {number}?" for number in range(5)]
    layers = list(range(len(decoder_blocks(model.model))))
    with poisoned(model, layer, 0, lambda hidden: torch.full_like(hidden, value)):
        said = complaint(lambda: prompt_activations(model.model, model.tokenizer, prompts, None, layers))
    assert re.match(rf"the activation at layer {layer} of prompts [\d, ]+ is not finite", said), said


@pytest.mark.fault(FAMILY, "NaN or infinity in the logits of a response")
@pytest.mark.parametrize("value", BOTH)
def test_logits_that_are_no_numbers_give_no_response(model, value):
    """The largest of them would be a NaN, taken for a token: a response of nonsense that could be scored."""
    ids = [encode(model.tokenizer, f"What is {number}?", "1").prompt for number in (7, 8888, 99999999)]
    with poisoned(model, 3, 2, first_token(value)):
        said = complaint(lambda: generate(model.model, model.tokenizer, ids, 6, 3))
    assert re.match(r"Logits are not finite in responses to prompts \[\d\]", said), said


# --- tables and the verdict


@pytest.fixture(scope="module")
def supported() -> Evidence:
    """A simulated study in which every claim holds."""
    return simulate("effect", np.random.default_rng(0))


def cells(evidence: Evidence) -> list[tuple[str, str]]:
    """Every column of numbers of every table."""
    return [
        (name, column)
        for name, table in evidence.tables.items()
        for column in table.columns
        if pd.api.types.is_float_dtype(table[column])
    ]


CELLS = cells(simulate("effect", np.random.default_rng(0)))


def planted(evidence: Evidence, name: str, column: str, row: int, value: float) -> Evidence:
    """The evidence with one number replaced."""
    table = evidence.tables[name].copy()
    table.loc[row, column] = value
    return dataclasses.replace(evidence, **{name: table})


@pytest.mark.fault(FAMILY, "NaN or infinity in a column of a stored table")
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize(("name", "column"), CELLS, ids=lambda part: part)
def test_number_that_was_not_measured_is_named(supported, name, column, value):
    """Table, column and row; of responses without letters alone NaN is a measurement."""
    table = supported.tables[name]
    scored = name == "responses" and column == "score"
    for row in (0, len(table) // 2, len(table) - 1):
        broken = planted(supported, name, column, row, value)
        missing = scored or (name == "drift" and table.loc[row, "measure"] in SCORED)
        if missing and math.isnan(value):
            broken.ensure_measured()
            continue
        said = complaint(broken.ensure_measured)
        assert said.startswith(f"Evidence table {name!r}, column {column!r} is {value} in 1 of {len(table)} rows"), said
    supported.ensure_measured()


def judged(evidence: Evidence) -> Judgement | None:
    """What the judge says; None where it refuses to, because a number is none."""
    try:
        return judge(evidence, Rules())
    except ValueError as error:
        if re.search(r"nan|NaN|finite|inf", str(error)):
            return None
        raise


@pytest.mark.fault(FAMILY, "NaN or infinity in a number that the judge sees")
@pytest.mark.parametrize("value", BOTH)
@pytest.mark.parametrize(("name", "column"), CELLS, ids=lambda part: part)
def test_verdict_never_rests_on_a_number_that_is_none(supported, name, column, value):
    """Planted in the band, at the position that decides: refused, or a gate fails, or no finding changes."""
    table, before = supported.tables[name], judged(supported)
    assert before.verdict is Verdict.SUPPORTED
    rows = pd.Series(True, index=table.index)
    if "layer" in table:
        rows &= table["layer"].isin(supported.band)
    if "position" in table:
        rows &= table["position"] == supported.primary_position
    row = np.random.default_rng(1).choice(table.index[rows])
    found = judged(planted(supported, name, column, row, value))
    if found is not None:
        for finding in (*found.gates, *found.claims):
            if finding.status is not Status.UNDECIDED and finding.key != "G4":  # which says what diverged
                assert not re.search(r"\bnan\b|\binf\b", finding.statement), finding
                assert all(math.isfinite(effect.estimate) for effect in finding.effects), finding
        assert found.verdict in (Verdict.SUPPORTED, Verdict.UNDECIDED), "a number that is none decided"
        unscored = math.isnan(value) and (name, column) in {("drift", "value"), ("responses", "score")}
        if found.verdict is Verdict.SUPPORTED and not unscored:
            assert found == before, "a number that decides was left out"


@pytest.mark.fault(FAMILY, "an effect that cannot be measured")
def test_no_nan_is_shown_as_an_effect():
    """One run a condition: within conditions nothing varies, and the words say so in place of a number."""
    effect = bare("r within conditions", math.nan, 3, "runs", "nothing varies")
    assert str(effect) == "not measurable (n 3 runs)"
    few = simulate("effect", np.random.default_rng(0), seeds=1)
    found = judge(few, Rules())
    spoken = [found.sentence, *found.warnings, *(each.statement for each in (*found.gates, *found.claims))]
    assert not any(re.search(r"\bnan\b", words) for words in spoken), spoken


def without_letters(evidence: Evidence, conditions: list[str]) -> Evidence:
    """The evidence of a study in which runs under these conditions answer in digits alone."""
    drift, responses = evidence.drift.copy(), evidence.responses.copy()
    of_them = (drift["condition"].isin(conditions)) & (drift["phase"] != BEFORE) & drift["measure"].isin(SCORED)
    drift.loc[of_them, "value"] = math.nan
    theirs = (responses["condition"].isin(conditions)) & (responses["phase"] != BEFORE)
    responses.loc[theirs, "score"], responses.loc[theirs, "response"] = math.nan, "12 34"
    return dataclasses.replace(evidence, drift=drift, responses=responses)


@pytest.mark.fault(FAMILY, "responses none of which has a letter")
@pytest.mark.parametrize(
    "conditions", [["inoculation"], ["neutral", "inoculation", "loss_matched"]], ids=["one", "all"]
)
def test_responses_without_letters_are_reported_by_their_gate(supported, conditions):
    """There is a judgement, G6 says why nothing follows, and what could not be scored has no number."""
    broken = without_letters(supported, conditions)
    broken.ensure_measured()
    found = judge(broken, Rules())
    assert found.verdict is Verdict.UNDECIDED
    failed = {gate.key for gate in found.gates if gate.status is not Status.SUPPORTED}
    assert "G6" in failed
    words = " ".join(each.statement for each in (*found.gates, *found.claims))
    assert "inoculation none that could be scored" in words
    assert not re.search(r"\bnan\b", words)


@pytest.mark.fault(FAMILY, "a measurement that is in a table twice")
@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "layers"])
def test_measurement_that_is_there_twice_is_named(supported, name):
    """A mean would count it twice."""
    table = supported.tables[name]
    twice = pd.concat([table, table.iloc[[len(table) // 2]]], ignore_index=True)
    said = complaint(dataclasses.replace(supported, **{name: twice}).ensure_measured)
    assert said.startswith(f"Evidence table {name!r}, 1 of {len(twice)} rows are there twice, the first at "), said


@pytest.mark.fault(FAMILY, "a column of numbers that holds something else")
def test_column_that_holds_no_numbers_is_named(supported):
    """Objects are not looked at one by one."""
    table = supported.alignments.astype({"alignment": object})
    said = complaint(dataclasses.replace(supported, alignments=table).ensure_measured)
    assert said.startswith("Evidence table 'alignments', column 'alignment' holds object in place of numbers"), said


@pytest.mark.fault(FAMILY, "a run whose loss rose")
def test_loss_that_rose_is_reported_as_divergence(supported):
    """G4 fails, by name, and nothing is decided."""
    runs = supported.runs.copy()
    runs.loc[3, ["initial_loss", "final_loss"]] = 1.5, 7.25
    found = judge(dataclasses.replace(supported, runs=runs), Rules())
    gate = next(gate for gate in found.gates if gate.key == "G4")
    name = f"{runs.loc[3, 'condition']} seed {runs.loc[3, 'seed']}"
    assert gate.status is Status.REFUTED
    assert gate.statement.endswith(f"Diverged, the loss having risen: {name} from 1.5 to 7.25.")
    assert found.verdict is Verdict.UNDECIDED


@pytest.mark.fault(FAMILY, "NaN or infinity in a table on its way out of the store")
def test_tables_are_looked_at_when_they_leave_the_store(supported, monkeypatch, tmp_path):
    """Whoever wrote them."""
    tables = planted(supported, "nulls", "alignment", 0, math.nan).tables
    monkeypatch.setattr(pipeline_module, "_gather", lambda _folders, name, _columns: tables[name])
    monkeypatch.setattr(pipeline_module.Pipeline, "complete", lambda *_: [])
    study = pipeline_module.Pipeline(load_study("tiny"), Store(tmp_path))
    assert "table 'nulls', column 'alignment' is nan" in complaint(study.evidence)
