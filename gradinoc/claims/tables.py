"""What a study leaves behind: the tables from which every effect, figure and verdict is computed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from gradinoc.errors import NumericalError
from gradinoc.study.description import POSITIONS
from gradinoc.study.traits import ALL_CAPS, Trait

MEASURES = ("score", "score_ood", "log_odds", "projection")
SCORED = ("score", "score_ood")  # of responses, NaN for one that cannot be scored
BASE = "base"  # the `condition` of what was measured on the model before any training
BASE_SEED = -1
BEFORE, EARLY, AFTER = "pre", "early", "post"  # training: phases of drift
CANDIDATE = "candidate"  # the role of a prompt of the pool that is no condition's own

COLUMNS: dict[str, tuple[str, ...]] = {
    "layers": ("layer", "cohens_d", "auc", "split_half_cosine", "in_band"),
    "projections": ("example", "side", "layer", "projection"),
    "alignments": (
        "condition", "example", "layer", "position", "loss", "alignment", "projection", "grad_norm",
    ),
    "nulls": ("null", "draw", "condition", "layer", "alignment"),
    "unrelated": ("trait", "condition", "example", "layer", "alignment"),
    "pool": ("role", "prompt", "chosen", "example", "loss"),
    "matched": ("seed", "step", "example", "layer", "position", "loss", "alignment", "projection", "grad_norm"),
    "matched_steps": ("seed", "step", "loss", "target", "chosen"),
    "training": (
        "condition", "seed", "step", "example", "layer", "position",
        "loss", "alignment", "projection", "grad_norm",
    ),
    "training_nulls": ("condition", "seed", "draw", "layer", "alignment"),
    "drift": ("condition", "seed", "phase", "measure", "example", "value"),
    "responses": (
        "condition", "seed", "phase", "domain", "example", "question", "response", "score", "projection",
    ),
    "runs": ("condition", "seed", "steps", "seconds", "initial_loss", "final_loss"),
}  # fmt: skip


# Columns that hold words, and those that say what a row is.
TEXT = ("condition", "side", "position", "null", "trait", "role", "prompt", "phase", "measure", "domain", "question",
        "response")  # fmt: skip
KEYS = ("condition", "side", "position", "null", "trait", "role", "prompt", "phase", "measure", "domain", "seed",
        "step", "example", "layer", "draw")  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """The tables of one study; a missing measurement is NaN, never 0.

    | table | one row is | units |
    |---|---|---|
    | `layers` | a decoder block | `cohens_d` in sd, `auc` a fraction, `split_half_cosine` a cosine |
    | `projections` | a held-out direction prompt x side (`promote`, `suppress`) x layer | hidden-state units |
    | `alignments` | a condition x example x layer x position on the frozen base model | `loss` nats/token, |
    |   |   | `alignment` = cos(-g, v), `projection` = -g.v and `grad_norm` nats/token per hidden-state unit |
    | `nulls` | a null direction x condition x layer: mean alignment over the examples, primary position | cosine |
    | `unrelated` | an unrelated trait's direction x condition x example x layer, primary position | cosine |
    | `pool` | a system prompt x calibration example: its `role` is a condition, or `candidate`; `chosen` | nats/token |
    |   |   | is True for the candidate closest to inoculation's mean loss |
    | `matched` | a neutral run's checkpoint at inoculation's first loss x example x layer x ... | as `alignments` |
    | `matched_steps` | a checkpoint that was looked at: mean `loss` of the same examples, the `target` | nats/token |
    |   |   | (inoculation's on the base model), and whether it is the one of `matched` (`chosen`) |
    | `training` | a run x step x example x layer x position, logged on the training backward pass | as `alignments` |
    | `training_nulls` | a run x random direction x layer: mean over its steps and examples | cosine |
    | `drift` | a run (or the base model, phase `pre`) x measure x evaluation example; `early` is during | fraction, |
    |   |   | training, without `score_ood`, and `post` after it | nats/token, hidden-state units |
    | `responses` | a greedy generation under the neutral prompt, phases as in `drift` | `score` a fraction |
    |   |   | (the trait's own: its caps rate, for instance) |
    | `runs` | a LoRA run; losses of the first fifth of its examples, when met and afterwards | nats/token, seconds |
    """

    layers: pd.DataFrame
    projections: pd.DataFrame
    alignments: pd.DataFrame
    nulls: pd.DataFrame
    training: pd.DataFrame
    training_nulls: pd.DataFrame
    drift: pd.DataFrame
    responses: pd.DataFrame
    runs: pd.DataFrame
    conditions: tuple[str, ...] = ("neutral", "inoculation", "loss_matched")
    seeds: tuple[int, ...] = (0, 1, 2)
    primary_position: str = POSITIONS[0]
    unrelated: pd.DataFrame = field(default_factory=lambda: _nothing("unrelated"))
    pool: pd.DataFrame = field(default_factory=lambda: _nothing("pool"))
    matched: pd.DataFrame = field(default_factory=lambda: _nothing("matched"))
    matched_steps: pd.DataFrame = field(default_factory=lambda: _nothing("matched_steps"))
    caveats: tuple[str, ...] = ()  # on how the tables were computed; told beside the verdict
    untrained: tuple[str, ...] = ()
    trait: Trait = ALL_CAPS
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
    def trained(self) -> tuple[str, ...]:
        """The conditions under which runs were trained; the others were measured on the frozen model alone."""
        return tuple(condition for condition in self.conditions if condition not in self.untrained)

    @property
    def band(self) -> list[int]:
        """The layers on which decisions rest, declared before any gradient was seen."""
        return sorted(int(layer) for layer in self.layers.loc[self.layers["in_band"], "layer"])

    @property
    def chosen_prompt(self) -> str | None:
        """The system prompt that was chosen from the pool, if there is one."""
        prompts = self.pool.loc[self.pool["chosen"].astype(bool), "prompt"]
        return None if prompts.empty else str(prompts.iloc[0])

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name in COLUMNS}


def _unmeasured(name: str, table: pd.DataFrame, column: str) -> str | None:
    """Where `column` of a table has no number though it should, in words; None if nowhere."""
    if column in TEXT or table.empty:
        return None
    if not pd.api.types.is_numeric_dtype(table[column]):
        return f"column {column!r} holds {table[column].dtype} in place of numbers"
    bad = ~np.isfinite(table[column].to_numpy(dtype=np.float64))
    if name == "drift":
        bad &= ~(table["measure"].isin(SCORED) & table[column].isna()).to_numpy()
    if (name, column) == ("responses", "score"):
        bad &= ~table[column].isna().to_numpy()
    if not bad.any():
        return None
    first = table[bad].iloc[0]
    keys = [key for key in COLUMNS[name] if not isinstance(first[key], float) and key not in ("question", "response")]
    place = ", ".join(f"{key} {first[key]}" for key in keys)
    return f"column {column!r} is {first[column]} in {int(bad.sum())} of {len(table)} rows, the first at {place}"


def _repeated(name: str, table: pd.DataFrame) -> str | None:
    """Which measurement is in a table twice, in words; None if none is."""
    keys = [column for column in COLUMNS[name] if column in KEYS]
    again = table.duplicated(keys)
    if not again.any():
        return None
    place = ", ".join(f"{key} {value}" for key, value in table.loc[again, keys].iloc[0].items() if key != "prompt")
    return f"{int(again.sum())} of {len(table)} rows are there twice, the first at {place}"


def _nothing(table: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS[table]))
