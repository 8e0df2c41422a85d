"""A plan's reach and power as text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gradinoc.power.design import design_of, floor, reach_table
from gradinoc.power.planning import ALL, OWN, PLANNED, SIZED, recommendation
from gradinoc.power.prospects import CORRELATION, OBSERVED, OF_INTEREST, smallest_of_interest
from gradinoc.power.variances import Variances
from gradinoc.study.description import Study
from gradinoc.study.rules import Rules


def written_reach(study: Study) -> str:
    """The smallest p and narrowest interval of every test of `study`, and what its claims can become, as text."""
    design = design_of(study)
    size = (
        f"{counted(design.seeds, 'seeds')}, {design.examples} examples, {design.questions} questions, "
        f"{design.directions.frozen} directions of a kind; significant at {study.rules.alpha:g}"
    )
    return (
        f"The best that each test of study {study.name} can come to ({size}); ± in standard deviations of a prompt's "
        f"or run's mean\n\n{aligned(_reach_rows(study))}\n"
    )


def _reach_rows(study: Study) -> list[list[str]]:
    yes = {True: "yes", False: "no"}
    rows = [["", "test", "n", "smallest p", "95 % interval", "decides", "can be supported", "refuted"]]
    for row in reach_table(study).itertuples():
        wide = "" if pd.isna(row.half_width) else f"± {row.half_width:.2g}"
        can = ["" if pd.isna(each) else yes[bool(each)] for each in (row.can_be_supported, row.can_be_refuted)]
        rows.append([row.key, row.test, counted(row.n, row.unit), floor(row.smallest_p), wide, row.decides, *can])
    return rows


def written_power(study: Study, variances: Variances, table: pd.DataFrame) -> str:
    """The power of `study` as text, an effect after the other, each with what more runs are best spent on."""
    parts = [
        f"Power, by {int(table['simulations'].iloc[0])} simulated studies of each size; variances of study "
        f"{variances.study} ({variances.seeds} seeds, {variances.harmless} harmless and {variances.inoculating} "
        "inoculating prompts). Gates stand by themselves, and claims are judged as if their gates held. ± of a share "
        f"is at most {2 * table['error'].max():.2f}; * is the study's own size.",
    ]
    for effect in dict.fromkeys(table["effect"]):
        own = table[table["effect"] == effect]
        parts += [
            f"Effect {in_words(effect, variances, study.rules)}:",
            aligned(_power_rows(own)),
            recommendation(table, effect),
        ]
    return "\n\n".join(parts) + "\n"


def in_words(effect: str, variances: Variances, rules: Rules) -> str:
    """An effect with its numbers."""
    past = variances.scenario
    if effect == OBSERVED:
        shown = [
            f"full inoculation lowers alignment by {past.fall:.3g} at equal loss, from a neutral {past.alignment:.3g}",
            f"harmless prompts remove {100 * past.conditional:.0f} % of the neutral drift of {past.drift:.3g}",
        ]
    elif effect == OF_INTEREST:
        fall, share = smallest_of_interest(variances, rules)
        shown = [
            f"inoculating prompts lower alignment by {fall:.3g} from a neutral {past.alignment:.3g}, not for loss",
            f"they remove {100 * share:.0f} % of the neutral drift beyond what harmless ones remove",
            f"at equal elicitation drift goes with alignment over prompts, correlation {CORRELATION:g}",
        ]
    else:
        shown = ["no prompt moves alignment, and inoculating ones remove no more drift than harmless ones"]
    return f"{effect} ({'; '.join(shown)})"


def counted(number: int, units: str) -> str:
    """A number with its unit, which is given in the plural."""
    return f"{number} {units.removesuffix('s') if number == 1 else units}"


def _power_rows(table: pd.DataFrame) -> list[list[str]]:
    keys = [*SIZED, *(claim.key for claim in PLANNED), ALL]
    rows = [["prompts a family", "seeds", "questions", *keys]]
    for (prompts, seeds, questions), part in table.groupby(["prompts", "seeds", "questions"]):
        shown = part.set_index("key")
        own = " *" if OWN in set(part["axis"]) else ""
        rows.append(
            [f"{prompts}{own}", str(seeds), str(questions), *(f"{shown.loc[key, 'power']:.2f}" for key in keys)]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Rows of text in columns, two blanks apart; all but the first may be aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in (zip(row, widths, strict=True) for row in rows):
        cells = [cell.rjust(width) if right else cell.ljust(width) for cell, width in others]
        lines.append("  ".join([first[0].ljust(first[1]), *cells]).rstrip())
    return "\n".join(lines)
