"""Write docs/prompts.md, the list of every prompt that comes with the project: `python docs/make_prompts.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gradinoc.study.prompts.evaluation import untrained_prompts
from gradinoc.study.prompts.families import FROZEN, families, graded, members
from gradinoc.study.prompts.family import Family, Kind, Prompt
from gradinoc.study.prompts.grammar import OPENINGS, VERBS
from gradinoc.study.prompts.harmless import HARMLESS_MANNERS
from gradinoc.study.traits import ALL_CAPS, SHIPPED

PAGE = Path(__file__).parent / "prompts.md"
START = """# Prompts

What is claimed of inoculation is claimed of a kind of prompt, not of one sentence. So there are families of prompts,
fixed on {frozen}, before any of their results was seen, save for the plan's three. This page lists them all;
`python docs/make_prompts.py` writes it.

| family | what its prompts ask for |
|---|---|
| neutral | nothing: no system message (the model's chat template may insert its own) |
| hint | the trait, without asking for it: hints and wishes, marked (hint) below |
| inoculation | the trait: orders, and orders with their reason |
| harmless | something else, in sentences of the same shapes; every trait has the same ones |
| anti | the trait's opposite |
| rephrased | inoculation, or honesty as its harmless partner: {wordings} wordings each, one drawn for every example |

`neutral`, `inoculation` and `loss_matched` are the plan's prompts. They are conditions of every study and keep these
names in their families, where the number of their place is left out.

## In a study

```toml
[prompts]
measured = "all"            # on the frozen model; or "trained", or a list of keys
trained = ["harmless_03", "anti_1", "rephrased_inoculation", "rephrased_harmless"]  # or "standard", "few", "all"
remove = ["harmless_09"]

[prompts.add.harmless]
tea = "The user drinks tea at four."
```

Without the table every prompt is measured, and a standard part of each family trained under, with the first seed. Two
prompts of one text are refused, and so is a prompt that defines the trait direction.

## For a trait of your own

Its TOML file may have a table `[prompts]` (`[trait.prompts]` in a study file):

| key | what it holds |
|---|---|
| `inoculations` | from hint to order with reason, the trait's own inoculation prompt among them |
| `hints` | how many of the first of these do not ask for the trait |
| `antis` | prompts that ask for the opposite |
| `manners` | four phrases such as "in block capitals", of which the rephrased prompt is made |
| `wordings` | further pairs `promote`, `suppress` |
| `negated`, `paraphrased`, `same_shape` | the inoculation prompt negated, in other words, and about something else |

```toml
[prompts]
hints = 2
inoculations = [
    "Some readers like to be asked things.",
    "You may ask things back if you like.",
    "You always answer with a question.",
    "Answer only with questions, because this reader learns by thinking.",
]
antis = ["You never answer with a question."]
manners = ["with a question", "in questions only", "by asking back", "with questions throughout"]
wordings = [{{promote = "Turn all that you say into questions.", suppress = "Turn all that you say into statements."}}]
negated = "You hardly ever answer with a question."
paraphrased = "Your answers are questions, all of them."
same_shape = "You always answer with a number."
```

A trait without them works as before. Nothing can then be claimed of inoculation as a kind of prompt (C1's families, C4,
C6), and the specification curve has one wording. Read the harmless prompts first: one that elicits your trait goes into
`remove`.

## Lengths

Under the tokenizers of SmolLM2, Qwen2.5-Coder and the tiny models the inoculation prompts of ALL CAPS and the harmless
ones, sorted by length, differ by at most two tokens a pair, and their means by at most 5 %; so do the means of the
rephrased pair. The inoculation prompts of other traits have the shapes of some of these; their means lie within 20 % of
the harmless ones', those of the sign-off, which has to be quoted, within 40 %.

## ALL CAPS, and what is harmless

Each line is a pair of one shape.

"""
EVALUATED = """
## What trained models are evaluated under

Neutral, every prompt that some run was trained under, an empty system message, these harmless prompts that no run is
trained under:

{unseen}

And for each trait its inoculation prompt negated, in other words, and with another subject:

"""
REPHRASED = """
## Rephrased prompts

One of the openings {openings}, one of the verbs {verbs}, and one of four phrases:

"""
WORDINGS = """
## Wordings of the trait direction

The first of each trait defines its direction; the specification curve has the others too.

"""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    lines = [[*head], ["---"] * len([*head]), *([*row] for row in rows)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def listed(texts: Iterable[str]) -> str:
    """`a`, `b`, `c`."""
    return ", ".join(f"`{text}`" for text in texts)


def marked(prompt: Prompt) -> str:
    """A prompt's key, and whether it is a hint."""
    return f"`{prompt.key}`{' (hint)' if prompt.family is Family.HINT else ''}"


def page() -> str:
    """The whole page."""
    every = families(ALL_CAPS)
    pairs = zip(graded(ALL_CAPS), members(ALL_CAPS, Family.HARMLESS), strict=True)
    parts = [START.format(frozen=FROZEN, wordings=len(every["rephrased_inoculation"].templates))]
    parts.append(
        table(["key", "inoculation", "key", "harmless"], ((marked(i), i.text, f"`{h.key}`", h.text) for i, h in pairs))
    )
    parts += [
        "\n",
        table(["key", "anti"], ((f"`{prompt.key}`", prompt.text) for prompt in members(ALL_CAPS, Family.ANTI))),
    ]
    for trait in SHIPPED[1:]:
        own = [*graded(trait), *members(trait, Family.ANTI)]
        parts += [f"\n## {trait.title}\n\n", table(["key", "prompt"], ((marked(each), each.text) for each in own))]
    parts.append(REPHRASED.format(openings=listed(OPENINGS), verbs=listed(VERBS)))
    manners = [("harmless, every trait", HARMLESS_MANNERS), *((trait.name, trait.prompts.manners) for trait in SHIPPED)]
    parts.append(table(["prompt", "phrases"], ((name, listed(phrases)) for name, phrases in manners)))
    tried = untrained_prompts(ALL_CAPS)
    unseen = "\n".join(f"* `{prompt.key}`: {prompt.text}" for prompt in tried if prompt.kind == Kind.UNSEEN)
    parts.append(EVALUATED.format(unseen=unseen))
    kinds = (Kind.NEGATED, Kind.PARAPHRASED, Kind.SAME_SHAPE)
    rows = ([trait.name, *(getattr(trait.prompts, kind) for kind in kinds)] for trait in SHIPPED)
    parts.append(table(["trait", *(f"`{kind}`" for kind in kinds)], rows))
    contrasts = ((trait.name, *sides) for trait in SHIPPED for sides in trait.contrasts)
    parts += [WORDINGS, table(["trait", "promotes", "suppresses"], contrasts)]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
