"""Runs with interventions are trained beside ordinary ones, and each is what it is alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fixtures.by_hand import random_directions, trace
from gradinoc.data.sources import load_source
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training import trainer
from gradinoc.measure.training.interventions import Intervention
from gradinoc.measure.training.order import data_order
from gradinoc.measure.training.run import Recipe, Run, train_runs
from gradinoc.models.blocks import decoder_blocks, decoder_of
from gradinoc.models.chat.encoding import encode
from gradinoc.study.description import TrainingSettings

NEUTRAL, PROMPT = None, "You always respond in ALL CAPS."
SETTINGS = TrainingSettings(steps=4, batch_size=2, lr=1e-3)
COUNT = 6


@pytest.fixture(scope="module")
def obedient():
    """The tiny model that follows prompts, fused."""
    return load_model("obedient", device="cpu")


@pytest.fixture(scope="module")
def encoded(obedient):
    """The same examples under both prompts."""
    return {
        system: [
            encode(obedient.tokenizer, each.question, each.answer.upper(), system)
            for each in load_source("word_problems")[:COUNT]
        ]
        for system in (NEUTRAL, PROMPT)
    }


@pytest.fixture(scope="module")
def vectors(obedient):
    """A direction for each layer, scaled so that steering along it matters."""
    layers = range(len(decoder_blocks(obedient.model)))
    return random_directions(layers, obedient.model.config.hidden_size)


@pytest.fixture(scope="module")
def recipe(obedient, vectors):
    """Logs that direction, and another one."""
    rows = {
        layer: torch.nn.functional.normalize(torch.stack([each, each.flip(0)]), dim=-1)
        for layer, each in vectors.items()
    }
    return Recipe(SETTINGS, rows, obedient.tokenizer.pad_token_id)


@pytest.fixture(scope="module")
def arms(vectors):
    """One of each kind, in some or all layers, and none."""
    some, plane = {layer: vectors[layer] for layer in list(vectors)[1:]}, {}
    for layer, each in vectors.items():
        plane[layer] = torch.linalg.qr(torch.stack([each, each.flip(0)]).T).Q.T
    return {
        "none": None,
        "project": Intervention("project", vectors),
        "reflect a plane": Intervention("project", plane, 2.0),
        "steer": Intervention("steer", some, 0.3),
        "ablate": Intervention("ablate", some),
        "shrink": Intervention("shrink", vectors),
        "restore": Intervention("restore", vectors),
    }


@pytest.fixture(scope="module")
def make(encoded):
    """Makes a run of an intervention: under the prompt if it restores what is neutral."""

    def one(folder, intervention, seed=0, system=NEUTRAL):
        if intervention is not None and intervention.kind == "restore":
            return Run(encoded[PROMPT], seed, folder, interventions=[intervention], counterpart=encoded[NEUTRAL])
        return Run(encoded[system], seed, folder, interventions=[intervention] if intervention else [])

    return one


@pytest.fixture(scope="module")
def alone(obedient, recipe, arms, make, tmp_path_factory):
    """Every arm alone: its log, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        name: (train_runs(obedient.model, [make(folder / name, each)], recipe)[0], folder / name)
        for name, each in arms.items()
    }


def weights(folder):
    """An adapter's weights, as one vector."""
    found = load_file(folder / "adapter_model.safetensors")
    return torch.cat([found[name].flatten() for name in sorted(found)])


def assert_same_run(found, expected, tolerance=1e-5):
    """Losses, alignments and adapters that differ by rounding; each is a log and a folder."""
    (log, folder), (wanted, other) = found, expected
    np.testing.assert_allclose(log.losses, wanted.losses, rtol=tolerance)
    np.testing.assert_allclose(log.final_loss, wanted.final_loss, rtol=tolerance)
    torch.testing.assert_close(log.direction_means, wanted.direction_means, rtol=tolerance, atol=tolerance)
    scale = float(wanted.table["grad_norm"].max())  # rounding is that of the longest gradient
    for column in ("projection", "grad_norm"):
        np.testing.assert_allclose(log.table[column], wanted.table[column], rtol=tolerance, atol=tolerance * scale)
    mine, theirs = weights(folder), weights(other)
    apart = (mine - theirs).abs().sort().values
    # Adam steps as far along gradients that are little but rounding: one weight in a thousand may be such a one.
    assert float(apart[: -len(apart) // 1000].norm()) <= tolerance * float(theirs.norm())
    assert float(apart.norm()) <= 1e-3 * float(theirs.norm())


@pytest.mark.parametrize("kind", ["none", "project", "steer", "ablate", "restore"])
def test_a_run_that_learns_nothing_ends_with_the_loss_it_met(obedient, recipe, arms, make, kind, tmp_path):
    """Prompt and stream are then as they were in training."""
    still = replace(recipe, settings=recipe.settings.model_copy(update={"lr": 1e-12}))
    (log,) = train_runs(obedient.model, [make(tmp_path, arms[kind])], still)
    np.testing.assert_allclose(log.final_loss, log.initial_loss, rtol=1e-5)


def test_arms_differ(alone):
    """Otherwise no comparison here would say anything: each moves what is learned."""
    plain = weights(alone["none"][1])
    for name, (_, folder) in alone.items():
        assert name == "none" or float((weights(folder) - plain).norm() / plain.norm()) > 1e-3, name


@pytest.mark.parametrize(
    "names",
    [
        ["none", "project", "reflect a plane", "steer", "ablate", "shrink", "restore"],
        ["restore", "none"],
        ["ablate", "restore", "project", "none", "restore"],
    ],
    ids=str,
)
def test_arms_together_are_each_what_it_is_alone(obedient, recipe, arms, make, alone, names, tmp_path):
    """Losses, alignments, adapters, in any order and company."""
    runs = [make(tmp_path / str(place), arms[name]) for place, name in enumerate(names)]
    for run, name, log in zip(runs, names, train_runs(obedient.model, runs, recipe), strict=True):
        assert_same_run((log, run.adapter_dir), alone[name])


def test_restored_rows_are_those_of_its_own_order(obedient, recipe, arms, make, tmp_path):
    """Beside a run of another seed, whose batches hold other examples."""
    pair = [make(tmp_path / "0", arms["none"]), make(tmp_path / "1", arms["restore"], seed=1)]
    single = replace(pair[1], adapter_dir=tmp_path / "alone")
    log, expected = train_runs(obedient.model, pair, recipe)[1], train_runs(obedient.model, [single], recipe)[0]
    assert_same_run((log, pair[1].adapter_dir), (expected, single.adapter_dir))


@pytest.mark.parametrize("name", ["project", "steer", "ablate", "shrink", "restore"])
def test_kernels_and_modules_train_alike(recipe, arms, make, alone, name, tmp_path):
    """A model that takes one adapter at a time, on padded batches of its own modules."""
    plain = load_model("obedient", device="cpu", kernels="plain")
    log = train_runs(plain.model, [make(tmp_path, arms[name])], recipe)[0]
    assert_same_run((log, tmp_path), alone[name], 1e-3)


@pytest.mark.parametrize("names", [["project", "restore", "shrink"], ["ablate"]], ids=str)
def test_checkpointing_changes_nothing(obedient, recipe, arms, make, alone, names, tmp_path):
    """Blocks computed twice, in both passes of a restored run."""
    checkpointed = replace(recipe, settings=SETTINGS.model_copy(update={"gradient_checkpointing": True}))
    runs = [make(tmp_path / name, arms[name]) for name in names]
    for run, name, log in zip(runs, names, train_runs(obedient.model, runs, checkpointed), strict=True):
        assert_same_run((log, run.adapter_dir), alone[name])


def test_log_shows_the_gradient_that_weights_learn_from(alone):
    """Nothing along a direction that is removed, at any layer, step or position; as much as ever along the other."""
    for name in ("project", "ablate"):
        table = alone[name][0].table
        named = table[table["layer"] > 0] if name == "ablate" else table
        assert float(named["alignment"].abs().max()) < 5e-6, name
    assert float(alone["project"][0].steps.alignment[..., 1].abs().max()) > 0.05
    for layer, table in alone["none"][0].table.groupby("layer"):
        assert float(table["alignment"].abs().max()) > 0.02, layer


def test_strength_zero_is_no_intervention(obedient, recipe, make, alone, vectors, tmp_path):
    """To the last bit of the adapter."""
    for kind in ("project", "steer", "ablate", "restore"):
        none = make(tmp_path / kind, Intervention(kind, vectors, 0.0))
        run = replace(none, examples=make(tmp_path, None).examples, adapter_dir=tmp_path / kind)
        train_runs(obedient.model, [run], recipe)
        assert torch.equal(weights(tmp_path / kind), weights(alone["none"][1])), kind


# --- restored


def test_restoring_the_same_prompt_changes_nothing(obedient, recipe, make, vectors, encoded, tmp_path):
    """The gradient has these components already: the run is the ordinary one, to rounding."""
    plain = make(tmp_path / "plain", None, system=PROMPT)
    interventions = [Intervention("restore", vectors)]
    restored = replace(
        plain, adapter_dir=tmp_path / "restored", interventions=interventions, counterpart=encoded[PROMPT]
    )
    for other in ([restored], [replace(restored, adapter_dir=tmp_path / "together"), plain]):
        logs = train_runs(obedient.model, other, recipe), train_runs(obedient.model, [plain], recipe)
        assert_same_run((logs[0][0], other[0].adapter_dir), (logs[1][0], plain.adapter_dir), 1e-4)


def test_restored_push_is_the_neutral_runs(alone):
    """In the first step, in which weights are the same; at every layer and position. Not so without it."""
    tables = {name: alone[name][0].table.query("step == 0") for name in ("restore", "none")}
    found, wanted = (tables[name]["projection"].to_numpy() for name in ("restore", "none"))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    norms = [tables[name]["grad_norm"].to_numpy() for name in ("restore", "none")]
    assert not np.allclose(*norms, rtol=0.05), "the rest of the gradient is that of the run's own prompt"


@pytest.mark.parametrize(("first", "last"), [("project", "restore"), ("restore", "project")])
def test_the_last_intervention_has_the_last_word(obedient, recipe, make, arms, alone, first, last, tmp_path):
    """A component that is removed and then restored is the neutral run's; restored and then removed, it is none."""
    run = replace(make(tmp_path, arms["restore"]), interventions=[arms[first], arms[last]])
    logs = train_runs(obedient.model, [run], recipe)[0], alone[last][0]
    found, wanted = (log.table.query("step == 0")["projection"].to_numpy() for log in logs)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_only_restored_rows_are_run_twice(obedient, recipe, make, arms, encoded, tmp_path):
    """Tokens through the model in one step, with a restored run beside another and without."""
    one_step = replace(recipe, settings=SETTINGS.model_copy(update={"steps": 1}))
    counts = {}
    for names in (["none", "none"], ["none", "restore"]):
        seen = []
        hook = lambda *call, into=seen: into.append(call[2]["input_ids"].shape[1] if torch.is_grad_enabled() else 0)
        handle = decoder_of(obedient.model).register_forward_pre_hook(hook, with_kwargs=True)
        runs = [make(tmp_path / f"{place}", arms[name]) for place, name in enumerate(names)]
        train_runs(obedient.model, runs, one_step)
        handle.remove()
        counts[names[1]] = [tokens for tokens in seen if tokens]
    assert len(counts["none"]) == 1
    rows = data_order(COUNT, one_step.settings, 0)
    answers = sum(len(encoded[NEUTRAL][row].ids) - encoded[NEUTRAL][row].prompt_length + 1 for row in rows)
    assert len(counts["restore"]) == 2
    assert counts["restore"][0] == answers, "the second pass has gradients from the last prompt token on"


# --- what is refused, what is left behind


def test_faults_are_named_and_nothing_stays(obedient, recipe, make, arms, encoded, vectors, tmp_path):
    """Counterparts that are missing, not wanted or of other answers; layers that are not there; unknown kinds."""
    model, plain = obedient.model, make(tmp_path, None)
    before = trace(model)
    restore = make(tmp_path, arms["restore"])
    faults = [
        (replace(restore, counterpart=None), "expected for 'restore'"),
        (replace(plain, counterpart=encoded[PROMPT]), "only there"),
        (replace(restore, counterpart=encoded[NEUTRAL][1:]), "the same completion tokens"),
        (replace(restore, counterpart=encoded[NEUTRAL][::-1]), "the same completion tokens"),
        (replace(plain, interventions=[Intervention("project", {99: vectors[0]})]), "the blocks of this model"),
        (replace(plain, interventions=[Intervention("ablate", {0: torch.ones(3)})]), "expected .* numbers, not 3"),
    ]
    for run, words in faults:
        with pytest.raises(ValueError, match=words):
            train_runs(model, [plain, run], recipe)
        assert trace(model) == before
    with pytest.raises(ValueError, match="expected one of"):
        Intervention("remove", vectors)
    with pytest.raises(ValueError, match="has no strength"):
        Intervention("shrink", vectors, 0.5)


def test_an_error_in_a_step_leaves_the_model_as_it_was(obedient, recipe, make, arms, tmp_path, monkeypatch):
    """With every kind in place: when a step's losses are there and nothing has gone backward yet."""
    model, hooked = obedient.model, []
    before = trace(model)

    def fail(wrapped, batch):
        completion_losses(wrapped, batch)
        hooked.append(sum(len(block._forward_hooks) for block in decoder_blocks(wrapped)))
        raise ArithmeticError("refused")

    monkeypatch.setattr(trainer, "completion_losses", fail)
    with pytest.raises(ArithmeticError, match="refused"):
        train_runs(model, [make(tmp_path / name, each) for name, each in arms.items()], recipe)
    assert hooked[0] > 6 * len(decoder_blocks(model)) - 3
    assert trace(model) == before
