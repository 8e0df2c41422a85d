"""What a study leaves behind: the tables from which every effect, figure and verdict is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from gradinoc.errors import NumericalError
from gradinoc.study.description import POSITIONS
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.traits import ALL_CAPS, Trait

SCORE, EVERYDAY, EXPECTED, DECISION = "score", "score_ood", "expected_score", "decision_log_odds"
GAP, PROJECTION = "answer_loss_gap", "projection"
MEASURES = (EXPECTED, SCORE, EVERYDAY, DECISION, GAP, PROJECTION)  # of drift; the first decides
AGREEING = (SCORE, EXPECTED, DECISION)  # that have to agree on how much inoculation removes (gate G9)
SCORED = (SCORE, EVERYDAY, EXPECTED)  # of responses, NaN for one that cannot be scored
BASE = "base"  # the `condition` of what was measured on the model before any training
BASE_SEED = -1
BEFORE, AFTER = "pre", "post"  # training: phases of drift
PROMOTE, SUPPRESS = "promote", "suppress"  # the direction's two prompts, where tables name prompts
TRAIT_DRAW = -1  # the `draw` of the trait's own direction in `steering`
TRAIT_DIRECTION, FROZEN = "trait", "frozen"  # of `cells`: the direction and window that decide
COSINE, PUSH, POOLED = "alignment", "push", "pooled alignment"  # measures of `cells`
WINDOWS = ("first", "middle", "last")  # thirds of a run's steps; the first decides
WHOLE, LEARNED = (
    "whole",
    "learned",
)  # directions of `shares`: none in particular, and that of the neutral runs' own drift
IN_PROMPT, IN_ANSWER = "prompt", "answer"  # positions of `shares`
FULL, LORA = "full", "lora"  # spaces of `kernel`: all weights of linear maps, and a fresh adapter's
FIXED, REPHRASED = "fixed", "rephrased"  # kinds of prompts under which is measured or trained; others: `Kind`

PROMPTS, ARMS = "prompts", "arms"  # tables that come from the study and not from its steps
OF_STUDY = (PROMPTS, ARMS)
COLUMNS: dict[str, tuple[str, ...]] = {
    "prompts": ("condition", "family", "kind", "text", "tokens", "measured", "trained"),
    "layers": ("layer", "cohens_d", "auc", "split_half_cosine", "in_band"),
    "projections": ("example", "side", "layer", "projection"),
    "alignments": (
        "condition", "example", "layer", "position", "loss", "alignment", "projection", "grad_norm",
    ),
    "losses": ("condition", "example", "trait_loss", "ordinary_loss"),
    "nulls": ("null", "draw", "condition", "layer", "alignment"),
    "unrelated": ("trait", "condition", "example", "layer", "alignment"),
    "elicitation": ("condition", "example", "log_odds"),
    "behaviour": ("condition", "example", "sample", "score"),
    "steering": ("draw", "strength", "example", "log_odds"),
    "steering_losses": ("strength", "example", "loss"),
    "training": (
        "condition", "seed", "step", "example", "layer", "position",
        "loss", "alignment", "projection", "grad_norm",
    ),
    "training_nulls": ("condition", "seed", "step", "draw", "layer", "alignment"),
    "drift": ("condition", "seed", "phase", "measure", "example", "value"),
    "checkpoints": ("condition", "seed", "step", "example", "log_odds"),
    "matrix": ("condition", "seed", "evaluation", "example", "log_odds"),
    "responses": (
        "condition", "seed", "phase", "domain", "example", "question", "response", "score", "projection",
    ),
    "cells": ("condition", "seed", "direction", "position", "window", "third", "measure", "value"),
    "runs": ("condition", "seed", "steps", "seconds", "initial_loss", "final_loss", "initial_adapter"),
    "weights": ("condition", "seed", "layer", "moved", "leak"),
    "arms": ("condition", "arm", "prompt", "intervention", "direction", "strength", "draw"),
    "energies": ("direction", "draw", "kind", "rank", "energy", "target"),
    "attribution": ("condition", "seed", "evaluation", "step", "example", "predicted", "measured"),
    "lengths": ("condition", "seed", "evaluation", "step", "length", "slope"),
    "modules": ("condition", "seed", "evaluation", "step", "layer", "module", "predicted"),
    "shares": ("condition", "seed", "step", "example", "layer", "position", "direction", "along"),
    "share_nulls": ("condition", "seed", "null", "draw", "layer", "along"),
    "kernel": ("condition", "evaluation", "space", "kernel", "training_norm", "evaluation_norm"),
}  # fmt: skip


# Columns that hold words, and those that say what a row is.
TEXT = ("condition", "side", "position", "null", "trait", "family", "kind", "text", "evaluation", "direction", "window",
        "measure", "phase", "domain", "question", "response", "initial_adapter", "module", "space", "arm",
        "prompt", "intervention")  # fmt: skip
KEYS = ("condition", "side", "position", "null", "trait", "evaluation", "direction", "window", "third", "measure",
        "phase", "domain", "seed", "step", "example", "sample", "strength", "layer", "draw", "module",
        "space")  # fmt: skip
LONG = ("question", "response", "text")  # too long for a message


@dataclass(frozen=True)
class Evidence:
    """The tables of one study; a missing measurement is NaN, never 0.

    | table | one row is | units |
    |---|---|---|
    | `prompts` | a system prompt: its `family`, its `kind` (`fixed`; `rephrased`, drawn anew for every | tokens |
    |   |   | example; or of `family.Kind`, for evaluation alone), whether it was `measured`, `trained` |  |
    | `layers` | a decoder block | `cohens_d` in sd, `auc` a fraction, `split_half_cosine` a cosine |
    | `projections` | a held-out direction prompt x side (`promote`, `suppress`) x layer | hidden-state units |
    | `alignments` | a prompt x example x layer x position on the frozen base model | `loss` nats/token, |
    |   |   | `alignment` = cos(-g, v), `projection` = -g.v and `grad_norm` nats/token per hidden-state unit |
    | `losses` | a prompt x example: losses of the answer with the trait and of the ordinary one | nats/token |
    | `nulls` | a null direction x prompt x layer: mean alignment over the examples, primary position | cosine |
    | `unrelated` | an unrelated trait's direction x prompt x example x layer, primary position | cosine |
    | `elicitation` | a prompt (or `promote`, `suppress`) x question: decision log-odds, frozen model | nats |
    | `behaviour` | a prompt (or `promote`, `suppress`) x question x sample: a sampled response's score | fraction |
    | `steering` | a direction (`draw`; -1: the trait's) x `strength` x question: decision log-odds | nats |
    | `steering_losses` | a `strength` along the trait's direction x question: loss of either form | nats |
    | `training` | a run x step x example x layer x position, logged on the training backward pass | as `alignments` |
    | `training_nulls` | a run x step x random direction x band layer: mean over the step's examples | cosine |
    | `drift` | a run (or the base model, phase `pre`) x measure of `MEASURES` x example; `post`: after | fraction, |
    |   |   | training | nats, nats/token, hidden-state units |
    | `checkpoints` | a run x step at which its adapter was kept x question: decision log-odds | nats |
    | `matrix` | a run (or the base model) x `evaluation` prompt x question: decision log-odds | nats |
    | `responses` | a greedy generation under the neutral prompt, phases as in `drift` | `score` a fraction |
    |   |   | (the trait's own: its caps rate, for instance) |
    | `cells` | a prompt (`window` frozen) or run (a third of training) x what a cell of the | cosine, nats/token |
    |   |   | specification curve chooses: direction, position, `third` of the layers, measure | per hidden unit |
    | `runs` | a LoRA run; losses of the first fifth of its examples, when met and afterwards; | nats/token, seconds |
    |   |   | SHA-256 of its adapter before the first step |  |
    | `weights` | a run x layer of the band: norm of its adapter's update, and which share of what | weights, |
    |   | that block's maps into the stream have learned points along v (`leak`) | fraction |
    | `arms` | a kind of run with an intervention, its `prompt`, and the direction that it acts along (`draw` |  |
    |   | -1: that itself; others: directions that are matched to it) |  |
    | `energies` | a drawn direction or subspace: share of the frozen model's gradient energy that it | fraction |
    |   | holds, and that of the direction to which it is matched |  |
    | `attribution` | a run x `evaluation` prompt x stretch that ends at `step` x question: change of its | nats |
    |   | decision log-odds that the run's steps account for (`predicted`), and as it is (`measured`) |  |
    | `lengths` | a run x `evaluation` x `step`: norms of the stretch's weight change and of the mean | weights, nats |
    |   |   | gradient of the decision log-odds along it | per weight |
    | `modules` | a run x `evaluation` x `step` x block x kind of linear map: its part of `predicted`, mean | nats |
    |   | over questions |  |
    | `shares` | a run x kept adapter, after `step` (0: before any) x question x layer x tokens of prompt or | nats |
    |   | answer x direction: what the halves of the stretches beside it did along it, neutral prompt |  |
    | `share_nulls` | a run x null direction x layer: the same, summed over steps, mean over questions | nats |
    | `kernel` | a prompt x `evaluation` prompt x `space`: inner product of the loss's descent direction and | nats |
    |   | the gradient of the decision log-odds, frozen model, and both norms | per learning rate |

    Runs with an intervention are in no table but `arms`: `with_arms` is the evidence of all runs, theirs among them,
    None where a study has none.
    """

    prompts: pd.DataFrame
    layers: pd.DataFrame
    projections: pd.DataFrame
    alignments: pd.DataFrame
    losses: pd.DataFrame
    nulls: pd.DataFrame
    unrelated: pd.DataFrame
    elicitation: pd.DataFrame
    behaviour: pd.DataFrame
    steering: pd.DataFrame
    steering_losses: pd.DataFrame
    training: pd.DataFrame
    training_nulls: pd.DataFrame
    drift: pd.DataFrame
    checkpoints: pd.DataFrame
    matrix: pd.DataFrame
    responses: pd.DataFrame
    cells: pd.DataFrame
    runs: pd.DataFrame
    attribution: pd.DataFrame
    lengths: pd.DataFrame
    modules: pd.DataFrame
    shares: pd.DataFrame
    share_nulls: pd.DataFrame
    kernel: pd.DataFrame
    weights: pd.DataFrame = field(default_factory=lambda: _no("weights"))
    arms: pd.DataFrame = field(default_factory=lambda: _no("arms"))
    energies: pd.DataFrame = field(default_factory=lambda: _no("energies"))
    planned_runs: tuple[tuple[str, int], ...] = ()  # (condition, seed), those that the study trains
    primary_position: str = POSITIONS[0]
    caveats: tuple[str, ...] = ()  # on how the tables were computed; told beside the verdict
    trait: Trait = ALL_CAPS
    with_arms: Evidence | None = None
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # by `measures`

    def __post_init__(self) -> None:
        """Check that each table has its columns.

        Raises:
            ValueError: a column is missing; the message names table and column.
        """
        for name, columns in COLUMNS.items():
            missing = [column for column in columns if column not in getattr(self, name).columns]
            if missing:
                raise ValueError(f"Evidence table {name!r} lacks the columns {missing}; it needs {columns}")

    def without_arms(self) -> Evidence:
        """The evidence of the runs without an intervention; the whole is its `with_arms`."""
        if self.arms.empty:
            return self
        names = set(self.arms["condition"])
        tables = {name: table for name, table in self.tables.items() if name != ARMS and "condition" in table}
        kept = {name: table[~table["condition"].isin(names)].reset_index(drop=True) for name, table in tables.items()}
        planned = tuple(run for run in self.planned_runs if run[0] not in names)
        return replace(self, **kept, planned_runs=planned, with_arms=self)

    def ensure_measured(self) -> None:
        """Stop if a number was not measured: responses that cannot be scored are the only ones that may be missing.

        Raises:
            NumericalError: NaN or infinity anywhere else, no number at all, or a measurement that is there twice; the
                message names the table, the column and the row.
        """
        for name, table in self.tables.items():
            for fault in (_repeated(name, table), *(_unmeasured(name, table, column) for column in COLUMNS[name])):
                if fault:
                    raise NumericalError(
                        f"Evidence table {name!r}, {fault}: it is not averaged away; "
                        "delete that step's folder in the store"
                    )

    @property
    def conditions(self) -> tuple[str, ...]:
        """The prompts that were measured on the frozen model."""
        return tuple(self.prompts.loc[self.prompts["measured"], "condition"])

    @property
    def trained(self) -> tuple[str, ...]:
        """The prompts under which runs were trained."""
        return tuple(self.prompts.loc[self.prompts["trained"], "condition"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the neutral runs, which have all of them."""
        return tuple(seed for condition, seed in self.planned_runs if condition == NEUTRAL)

    def family(self, family: Family, among: Sequence[str]) -> tuple[str, ...]:
        """The fixed prompts of a family that are `among` these; rephrased ones are no member of it."""
        rows = self.prompts[(self.prompts["family"] == family) & (self.prompts["kind"] == FIXED)]
        return tuple(condition for condition in rows["condition"] if condition in among)

    @property
    def band(self) -> list[int]:
        """The layers on which decisions rest, declared before any gradient was seen."""
        return sorted(int(layer) for layer in self.layers.loc[self.layers["in_band"], "layer"])

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name in COLUMNS}


def _no(table: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS[table]))


def _unmeasured(name: str, table: pd.DataFrame, column: str) -> str | None:
    """Where `column` of a table has no number though it should, in words; None if nowhere."""
    if column in TEXT or table.empty:
        return None
    if not pd.api.types.is_numeric_dtype(table[column]):
        return f"column {column!r} holds {table[column].dtype} in place of numbers"
    bad = ~np.isfinite(table[column].to_numpy(dtype=np.float64))
    if name == "drift":
        bad &= ~(table["measure"].isin(SCORED) & table[column].isna()).to_numpy()
    if (name, column) in (("responses", "score"), ("behaviour", "score")):
        bad &= ~table[column].isna().to_numpy()
    if (name, column) == ("weights", "leak"):  # maps into the stream may have names that are not known
        bad &= ~table[column].isna().to_numpy()
    if not bad.any():
        return None
    first = table[bad].iloc[0]
    keys = [key for key in COLUMNS[name] if not isinstance(first[key], float) and key not in LONG]
    place = ", ".join(f"{key} {first[key]}" for key in keys)
    return f"column {column!r} is {first[column]} in {int(bad.sum())} of {len(table)} rows, the first at {place}"


def _repeated(name: str, table: pd.DataFrame) -> str | None:
    """Which measurement is in a table twice, in words; None if none is."""
    keys = [column for column in COLUMNS[name] if column in KEYS]
    again = table.duplicated(keys)
    if not again.any():
        return None
    place = ", ".join(f"{key} {value}" for key, value in table.loc[again, keys].iloc[0].items() if key not in LONG)
    return f"{int(again.sum())} of {len(table)} rows are there twice, the first at {place}"
