"""Every number that is judged, on one fixed study, against what it was when the rules were last meant to change.

The study is written in whole numbers: sums and remainders, no random generator, so that no version of a library moves
it. A rule that changes on purpose needs the frozen numbers made anew, and the change then shows line by line:

    python -m tests.claims.test_golden
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.tables import (
    AFTER,
    BASE,
    BASE_SEED,
    BEFORE,
    CANDIDATE,
    EARLY,
    MEASURES,
    SCORED,
    Evidence,
)
from gradinoc.claims.verdict import Judgement, judge
from gradinoc.study.description import NULLS, POSITIONS
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

FROZEN = Path(__file__).with_name("golden.csv")
NUMBERS = ["estimate", "low", "high", "p"]

TRAINED = (NEUTRAL, INOCULATION, LOSS_MATCHED)
FURTHER = "loss_measured"
CONDITIONS = (*TRAINED, FURTHER)
ALIGNMENT = {NEUTRAL: 40, INOCULATION: 22, LOSS_MATCHED: 37, FURTHER: 34}  # hundredths
LOSS = {NEUTRAL: 210, INOCULATION: 196, LOSS_MATCHED: 206, FURTHER: 198}  # hundredths of a nat/token
DRIFT = {NEUTRAL: 300, INOCULATION: 170, LOSS_MATCHED: 260}  # hundredths of a nat/token
CAPS = {NEUTRAL: 6, INOCULATION: 2, LOSS_MATCHED: 5}  # eighths
DEPTH = (4, 9, 10)  # of the layers, tenths; the first is outside the band
EXAMPLES, TEMPLATES, STEPS, DRAWS, EVALUATED = 18, 7, 16, 60, 8
SEEDS = (0, 1, 2)


def grid(**levels) -> pd.DataFrame:
    """One row for every combination of levels, the last varying fastest."""
    return pd.MultiIndex.from_product(levels.values(), names=levels.keys()).to_frame(index=False)


def ripple(key: int, *columns: pd.Series) -> np.ndarray:
    """Numbers between -1/2 and 1/2 that depend on every column and look like noise: squares modulo a prime."""
    mixed = key
    for column in columns:
        code = column if pd.api.types.is_integer_dtype(column) else pd.factorize(column)[0]
        mixed = (31 * mixed + 17 * np.asarray(code) + 5) % 10_007
    return (mixed * mixed % 10_007) / 10_007 - 0.5


def by(column: pd.Series, values: dict[str, int], unit: float) -> np.ndarray:
    """What stands under each condition, in units."""
    return column.map(values).to_numpy() * unit


def measured(table: pd.DataFrame, loss: np.ndarray, alignment: np.ndarray) -> pd.DataFrame:
    """`table` with the columns of a gradient; alignment grows with depth."""
    alignment = alignment * np.array(DEPTH)[table["layer"]] / 10
    norm = 0.05 * loss
    return table.assign(loss=loss, alignment=alignment, projection=alignment * norm, grad_norm=norm)


def frozen_model() -> dict[str, pd.DataFrame]:
    """The tables that are measured before any training."""
    place = {"layer": range(3), "position": POSITIONS[:1]}
    rows = grid(condition=CONDITIONS, example=range(EXAMPLES), **place)
    hard = 0.5 * ripple(1, rows["example"])
    loss = by(rows["condition"], LOSS, 0.01) + hard + 0.1 * ripple(2, rows["example"], rows["condition"])
    own = 0.15 * ripple(3, rows["example"]) + 0.1 * ripple(4, rows["condition"], rows["example"], rows["layer"])
    alignments = measured(rows, loss, by(rows["condition"], ALIGNMENT, 0.01) + 0.05 * hard + own)
    nulls = grid(null=NULLS, draw=range(DRAWS), condition=CONDITIONS, layer=range(3))
    level = 0.06 * ripple(5, nulls["null"], nulls["draw"]) + 0.25 * ripple(6, *(nulls[name] for name in nulls))
    traits = grid(trait=("politeness", "brevity"), condition=CONDITIONS, example=range(EXAMPLES), layer=range(3))
    apart = -0.1 * ripple(7, traits["trait"], traits["condition"]) + 0.1 * ripple(8, *(traits[name] for name in traits))
    pool = grid(role=(*CONDITIONS, CANDIDATE), example=range(6))
    cost = pool["role"].map({**LOSS, CANDIDATE: 199}) * 0.01 + 0.2 * ripple(9, pool["example"])
    return {
        "layers": pd.DataFrame(
            {
                "layer": range(3),
                "cohens_d": [2.0, 5.0, 6.0],
                "auc": [0.93, 0.99, 1.0],
                "split_half_cosine": [0.85, 0.93, 0.96],
                "in_band": [False, True, True],
            }
        ),
        "projections": grid(example=range(4), side=("promote", "suppress"), layer=range(3)).assign(projection=1.0),
        "alignments": alignments.assign(group=alignments["example"] % TEMPLATES),
        "nulls": nulls.assign(alignment=level),
        "unrelated": traits.assign(alignment=apart),
        "pool": pool.assign(prompt=pool["role"], chosen=pool["role"] == CANDIDATE, loss=cost),
    }


def runs() -> dict[str, pd.DataFrame]:
    """The tables of training; a run's own early alignment moves its drift."""
    rows = grid(condition=TRAINED, seed=SEEDS, step=range(STEPS), row=range(2), layer=range(3), position=POSITIONS[:1])
    rows["example"] = 2 * rows["step"] + rows.pop("row")
    learnt = 1 - 0.05 * rows["step"].to_numpy()
    loss = by(rows["condition"], LOSS, 0.01) * learnt + 0.1 * ripple(11, rows["example"], rows["seed"])
    noise = 0.06 * ripple(12, rows["condition"], rows["seed"], rows["example"], rows["layer"])
    early = 0.2 * ripple(32, rows["condition"], rows["seed"])
    training = measured(rows, loss, (by(rows["condition"], ALIGNMENT, 0.01) + early) * learnt + noise)
    nulls = grid(condition=TRAINED, seed=SEEDS, draw=range(DRAWS), layer=range(3))
    chance = 0.04 * ripple(14, *(nulls[name] for name in nulls))
    finished = grid(condition=TRAINED, seed=SEEDS)
    matched = grid(seed=SEEDS, step=(3,), example=range(EXAMPLES), layer=range(3), position=POSITIONS[:1])
    came_down = 1.96 + 0.5 * ripple(1, matched["example"]) + 0.02 * ripple(15, matched["example"], matched["seed"])
    level = 0.38 + 0.15 * ripple(3, matched["example"]) + 0.1 * ripple(16, *(matched[name] for name in matched))
    looked = grid(seed=SEEDS, step=(1, 2, 3, 4))
    return {
        "training": training,
        "training_nulls": nulls.assign(alignment=chance),
        "runs": finished.assign(steps=STEPS, seconds=1.0, initial_loss=2.0, final_loss=1.2),
        "matched": measured(matched, came_down, level),
        "matched_steps": looked.assign(loss=2.1 - 0.05 * looked["step"], target=1.96, chosen=looked["step"] == 3),
    }


def evaluated() -> dict[str, pd.DataFrame]:
    """The tables of drift: before training, amid and after it."""
    frames = []
    for measure in MEASURES:
        examples = range(EVALUATED)
        base = grid(condition=[BASE], seed=[BASE_SEED], phase=[BEFORE], measure=[measure], example=examples)
        after = grid(condition=TRAINED, seed=SEEDS, phase=(EARLY, AFTER), measure=[measure], example=examples)
        if measure == "score_ood":
            after = after[after["phase"] == AFTER]
        done = np.where(after["phase"] == EARLY, 0.5, 1.0)
        if measure in SCORED:
            noise = 4 * ripple(21, after["condition"], after["seed"], after["example"], after["phase"])
            change = np.rint(by(after["condition"], CAPS, 1.0) * done + noise)
            frames += [base.assign(value=0.0), after.assign(value=np.clip(change, 0, 8) / 8)]
            continue
        key = 22 + MEASURES.index(measure)
        own = 60 * ripple(32, after["condition"], after["seed"]) + 40 * ripple(key, after["seed"], after["example"])
        own += 90 * ripple(key, after["phase"], after["condition"], after["seed"])
        change = (by(after["condition"], DRIFT, 0.01) + 0.01 * own) * done
        frames += [
            base.assign(value=-4 + ripple(27, base["example"])),
            after.assign(value=-4 + ripple(27, after["example"]) + change),
        ]
    drift = pd.concat(frames, ignore_index=True)
    drift["group"] = drift["example"] % 5
    scored = drift[drift["measure"].isin(SCORED)]
    answers = scored.assign(
        domain=np.where(scored["measure"] == "score", "in_distribution", "everyday"),
        question="?",
        response="They walk.",
        score=scored["value"],
        projection=scored["value"] + 0.5 * ripple(28, scored["example"], scored["seed"] + 1),
    )
    return {"drift": drift, "responses": answers.drop(columns=["measure", "value", "group"])}


def study() -> Evidence:
    """The fixed study."""
    tables = frozen_model() | runs() | evaluated()
    return Evidence(**tables, conditions=CONDITIONS, seeds=SEEDS, untrained=(FURTHER,))


def numbers(judgement: Judgement) -> pd.DataFrame:
    """A row for every effect of every gate and claim, with what became of it."""
    return pd.DataFrame(
        [
            {"key": found.key, "status": str(found.status), "effect": effect.name, "unit": effect.unit, "n": effect.n}
            | {name: getattr(effect, name) for name in NUMBERS}
            for found in (*judgement.gates, *judgement.claims)
            for effect in found.effects
        ]
    )


@pytest.fixture(scope="module")
def both() -> pd.DataFrame:
    """What is judged today beside what is frozen, effect by effect."""
    index = ["key", "effect"]
    today, frozen = numbers(judge(study(), Rules())).set_index(index), pd.read_csv(FROZEN).set_index(index)
    assert today.index.is_unique, "two effects of one claim have one name"
    return today.join(frozen.add_suffix(" frozen"), how="outer")


def test_no_judged_number_is_gained_lost_or_renamed(both):
    """An effect that comes, goes, counts other things or decides otherwise is a change of a rule."""
    changed = {name: both.index[both[name] != both[f"{name} frozen"]].tolist() for name in ("status", "unit", "n")}
    assert not any(changed.values()), changed


@pytest.mark.parametrize("name", NUMBERS)
def test_no_judged_number_moves(both, name):
    """Estimates, intervals and p to nine digits, however small a p is; what was missing still is."""
    apart = ~np.isclose(both[name], both[f"{name} frozen"], rtol=1e-9, atol=0 if name == "p" else 1e-12, equal_nan=True)
    assert not apart.any(), both.loc[apart, [name, f"{name} frozen"]].to_string()


def test_the_fixed_study_reaches_every_rule_that_decides():
    """All gates hold and all claims are supported: no number is passed over because an earlier one decided."""
    judgement = judge(study(), Rules())
    statuses = {found.key: str(found.status) for found in (*judgement.gates, *judgement.claims)}
    assert set(statuses.values()) == {"supported"}, statuses


if __name__ == "__main__":
    numbers(judge(study(), Rules())).to_csv(FROZEN, index=False)
