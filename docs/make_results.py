"""Write the tables of docs/results from the claims.csv of the studies: `python docs/make_results.py`.

A page says where: between `<!-- numbers of smollm2, smollm2-gsm8k -->` and `<!-- end of numbers -->`. There is a column
for each of these folders of docs, and with `: C5, G11` behind them only rows of these claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parent
PAGES = sorted((DOCS / "results").glob("*.md"))
PLACE = re.compile(r"(?<=<!-- numbers of )(.+?)( -->\n)(.*?)(?=<!-- end of numbers -->)", re.DOTALL)
TITLES = {
    "smollm2": "bundled word problems",
    "smollm2-gsm8k": "GSM8K",
    "causal-smollm2": "`causal-smollm2`",
    "causal-smollm2-learned": "`causal-smollm2-learned`",
}
BAR, ESCAPED = "|", r"\|"  # a table's own sign
OF_A_GATE = {"supported": "holds", "refuted": "**fails**"}


def page(path: Path) -> str:
    """Return the text of a page with its tables as they should be."""
    return PLACE.sub(lambda found: f"{found[1]}{found[2]}{_table(found[1])}", path.read_text("utf-8"))


def _table(what: str) -> str:
    folders, claims = (part.split(", ") if part else [] for part in what.partition(": ")[::2])
    studies = [pd.read_csv(DOCS / folder / "claims.csv").set_index(["claim", "key"]) for folder in folders]
    if claims:
        studies = [study[study.index.get_level_values("claim").isin(claims)] for study in studies]
    lines = [
        "",
        f"| | effect | {' | '.join(TITLES[folder] for folder in folders)} |",
        "|---" * (2 + len(folders)) + "|",
    ]
    for claim in dict.fromkeys(claim for study in studies for claim, _ in study.index):
        lines += _rows(claim, [study.loc[[claim]].droplevel(0) for study in studies])
    return "\n".join([*lines, "", ""])


def _rows(claim: str, studies: Sequence[pd.DataFrame]) -> Iterator[str]:
    """A row with what became of the claim, and one for each of its effects, in the order of the last study."""
    states = [study["status"].iloc[0] for study in studies]
    named = [OF_A_GATE.get(state, state) if claim.startswith("G") else state for state in states]
    yield f"| **{claim}** | | {' | '.join(named)} |"
    for key in dict.fromkeys(key for study in reversed(studies) for key in study.index):
        found = [study.loc[key] if key in study.index else None for study in studies]
        name = next(effect["effect"] for effect in reversed(found) if effect is not None)
        # What p tests is the rule's: a study that was written down before the column was there has it from the others.
        against = max(each.get("against", 0.0) for each in found if each is not None)
        cells = ("" if each is None else _cell(each, against) for each in found)
        yield f"| {claim} | {name.replace(BAR, ESCAPED)} | {' | '.join(cells)} |"


def _cell(effect: pd.Series, against: float) -> str:
    """Estimate, interval, p with what it tests where that is not zero, and n."""
    estimate = effect["estimate"]
    words = f"{estimate:{'+' if estimate else ''}.3g}" if pd.notna(estimate) else "not measurable"
    if pd.notna(effect["low"]):
        words += f" [{effect['low']:+.3g}, {effect['high']:+.3g}]"
    if pd.notna(effect["p"]):
        words += f", p {effect['p']:.2g}" + (f" against {against:g}" if against else "")
    return f"{words} (n {effect['n']} {effect['unit']})".replace("e-0", "e−").replace("-", "−")


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(page(each), "utf-8")
