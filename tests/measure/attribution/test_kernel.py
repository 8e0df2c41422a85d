"""The kernel before training: against small steps, the full weights, and another library on the same inner products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.influence import TracInCP
from peft import LoraConfig, get_peft_model
from torch import nn

from fixtures.attributed import OWN, SETTINGS
from gradinoc.data.examples import showing
from gradinoc.data.sources import load_source
from gradinoc.measure.attribution.kernel import kernel_matrix
from gradinoc.measure.attribution.slopes import (
    adapted_for_gradients,
    log_odds_slope,
    put_weights,
    read_weights,
    slope_of,
    whole_weights,
)
from gradinoc.measure.behaviour.decisions import log_odds_of
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.adapters import fresh_adapters, save_adapter
from gradinoc.models.adapters import targets
from gradinoc.models.chat.encoding import encode
from gradinoc.study.traits import ALL_CAPS


def test_kernel_is_what_a_small_step_does(language_model, behaviours, tmp_path):
    """A small step down the gradient under each prompt moves each behaviour as its row says."""
    model, tokenizer = language_model
    pad, rate = int(tokenizer.pad_token_id), 1e-2
    with fresh_adapters(model, [0], SETTINGS) as (wrapped, _):
        save_adapter(wrapped, tmp_path / "fresh")
    training = {
        name: [encode(tokenizer, e.question, showing(e, ALL_CAPS), prompt) for e in load_source("word_problems")[:4]]
        for name, prompt in {"neutral": None, "own": OWN}.items()
    }
    with adapted_for_gradients(model, tmp_path / "fresh") as adapted:
        table = kernel_matrix(adapted, training, behaviours, pad).set_index(["training", "evaluation"])
        weights = read_weights(adapted, tmp_path / "fresh")
        before = {name: log_odds_slope(adapted, decided, pad).value for name, decided in behaviours.items()}
        for prompt, examples in training.items():
            put_weights(adapted, weights)
            loss = slope_of(adapted, examples, lambda own, batch, _: completion_losses(own, batch), pad)
            put_weights(adapted, {name: value - rate * loss.gradient[name] for name, value in weights.items()})
            for name, decided in behaviours.items():
                row = table.loc[(prompt, name)]
                change = log_odds_slope(adapted, decided, pad).value - before[name]
                assert change == pytest.approx(rate * row["kernel"], rel=3e-2, abs=2e-5)
                assert row["kernel"] == pytest.approx(row["cosine"] * row["training_norm"] * row["evaluation_norm"])
    assert len(table) == 4


def test_kernel_of_a_fresh_adapter_is_that_of_the_full_weights(behaviours):
    """But for a factor, and for the projection's noise: with a high rank rows of the two are parallel."""
    loaded = load_model("obedient", device="cpu", kernels="plain")
    model, tokenizer = loaded.model, loaded.tokenizer
    pad, layer = int(tokenizer.pad_token_id), "model.layers.1.mlp.down_proj"
    placed = {name: [each for each in decided if each.places] for name, decided in behaviours.items()}
    full = []
    model.get_submodule(layer).weight.requires_grad_(True)
    for decided in placed.values():
        batch = batched(model, [each.encoded for each in decided], pad)
        (gradient,) = torch.autograd.grad(log_odds_of(model, batch, decided).mean(), model.get_submodule(layer).weight)
        full.append(gradient.double())
    model.get_submodule(layer).weight.requires_grad_(False)
    width = model.get_submodule(layer).weight.shape[1]
    torch.manual_seed(0)
    config = LoraConfig(r=8 * width, lora_alpha=1, target_modules=[layer], init_lora_weights="gaussian")
    wrapped = get_peft_model(model, config)
    try:
        low = [log_odds_slope(wrapped, decided, pad).gradient for decided in placed.values()]
    finally:
        wrapped.unload()
    ups = [next(value for name, value in gradient.items() if "lora_B" in name) for gradient in low]
    cosines = [float((one * other).sum() / one.norm() / other.norm()) for one, other in (full, ups)]
    assert cosines[0] == pytest.approx(cosines[1], abs=0.05)


def test_kernel_of_the_whole_weights_is_that_of_autograd(language_model, behaviours):
    """Inner products of gradients of all linear maps of the blocks; afterwards nothing takes gradients."""
    model, tokenizer = language_model
    pad, decided = int(tokenizer.pad_token_id), [each for each in behaviours["neutral"] if each.places]
    training = [encode(tokenizer, e.question, showing(e, ALL_CAPS), None) for e in load_source("word_problems")[:3]]
    with whole_weights(model) as whole:
        table = kernel_matrix(whole, {"neutral": training}, {"neutral": decided}, pad, batch_size=2)
        weights = [model.get_submodule(name).weight for name in targets(model).adapted]
        batches = [batched(model, each, pad) for each in (training, [decision.encoded for decision in decided])]
        loss = torch.autograd.grad(completion_losses(model, batches[0]).mean(), weights)
        odds = torch.autograd.grad(log_odds_of(model, batches[1], decided).mean(), weights)
    expected = -sum(float((one.double() * other).sum()) for one, other in zip(loss, odds, strict=True))
    assert table["kernel"].item() == pytest.approx(expected, rel=1e-3)
    assert not any(weight.requires_grad for weight in model.parameters())


class Losses(nn.Module):
    """A model as TracInCP calls it: from rows of padded tokens to each row's mean loss over its completion."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask, labels):
        """Losses `[batch]`."""
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
        counted = labels[:, 1:] != -100
        return losses.view(counted.shape).sum(1) / counted.sum(1)


def padded(examples):
    """Token ids, attention mask and labels `[batch, seq]`, and a label for TracInCP, which is not looked at."""
    ids, labels = ([torch.tensor(row) for row in rows] for rows in zip(*(
        (each.ids, [-100] * each.prompt_length + list(each.ids[each.prompt_length :])) for each in examples
    ), strict=True))  # fmt: skip
    mask = [torch.ones_like(row) for row in ids]
    pad = nn.utils.rnn.pad_sequence
    return (
        pad(ids, batch_first=True),
        pad(mask, batch_first=True),
        pad(labels, batch_first=True, padding_value=-100),
        (torch.zeros(len(examples))),
    )


# Captum warns that it is given one checkpoint and a data loader's own batches.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_inner_products_are_those_of_tracin(run):
    """Losses of held-out examples on training examples, one checkpoint: captum's TracInCP, mean over both."""
    loaded = load_model("obedient", device="cpu", kernels="plain")
    model, tokenizer = loaded.model, loaded.tokenizer
    pad, questions = int(tokenizer.pad_token_id), load_source("word_problems")
    train, test = (
        [encode(tokenizer, e.question, showing(e, ALL_CAPS), system) for e in part]
        for part, system in ((questions[:4], OWN), (questions[4:7], None))
    )
    with adapted_for_gradients(model, run[-1]) as adapted:
        ours = [
            slope_of(adapted, part, lambda own, batch, _: completion_losses(own, batch), pad) for part in (train, test)
        ]
        found = sum(float((ours[0].gradient[name] * ours[1].gradient[name]).sum()) for name in ours[0].gradient)
        wrapped = Losses(adapted)
        layers = [name for name, module in wrapped.named_modules() if name.endswith(".default") and "lora_" in name]
        tracin = TracInCP(
            wrapped, torch.utils.data.TensorDataset(*padded(train)), ["only"], lambda *_: 1.0, layers,
            loss_fn=lambda losses, _: losses, batch_size=len(train),
        )  # fmt: skip
        expected = tracin.influence(padded(test))
    assert expected.shape == (len(test), len(train))
    assert np.isclose(found, float(expected.double().mean()), rtol=1e-4)
