"""The report's page shows the study's own numbers, prompts, answers and environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fixtures.written import COMMAND, MACHINE, RENDERED
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.verdict import OPTIONAL, Judgement, judge, not_run
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES
from gradinoc.report.page import WriteUp
from gradinoc.report.page.courses import questions, run_grid
from gradinoc.report.page.minds import CAUSES, NEEDED, mind
from gradinoc.report.page.surroundings import surroundings
from gradinoc.report.wording import markdown_text
from gradinoc.study.description import Study
from gradinoc.study.rules import Rules
from gradinoc.study.traits.prompts import TraitPrompts


def test_table_of_runs_shows_the_numbers_of_the_runs(opened, evidence: Evidence) -> None:
    """A row a run, conditions in their order, numbers as measured; a dash for what is missing."""
    cells = [row.locator("th, td").all_inner_texts() for row in opened().locator("#runs .runs tbody tr").all()]
    found = run_grid(evidence)
    assert cells == [list(row) for row in found.rows]
    order = [(name.replace("_", " "), str(seed)) for name in evidence.trained for seed in seeds_of(evidence, name)]
    assert [(row[0], row[1]) for row in cells] == order
    drift = [column.name for column in found.columns].index("score_ood_drift")
    assert [row[drift] for row in cells if row[:2] == ["neutral", "1"]] == ["–"]
    assert found.columns[drift].text({"score_ood_drift": -0.12345}) == "−0.123"


def seeds_of(evidence: Evidence, condition: str) -> list[int]:
    """The seeds of the runs that were trained under a prompt."""
    return sorted(seed for name, seed in evidence.planned_runs if name == condition)


def test_a_claim_s_numbers_stand_in_a_table(opened, judgement: Judgement) -> None:
    """What decides first, with n and what it counts in columns of their own; the rest is folded away below."""
    page = opened()
    for finding in (*judgement.claims, *judgement.gates):
        tables = page.locator(f"#{finding.key} table.numbers").all()
        rows = [
            row.locator("th, td").all_text_contents() for table in tables for row in table.locator("tbody tr").all()
        ]
        assert sorted(row[0] for row in rows) == sorted(effect.name for effect in finding.effects)
        first = tables[0].locator("tbody tr").first.locator("th, td").all_text_contents()
        effect = next(each for each in finding.effects if each.name == first[0])
        assert effect.key in {finding.headline, *(criterion.key for criterion in finding.criteria)}
        assert (first[4], first[5], first[6]) == (str(effect.n), effect.unit, effect.method)
        assert not page.locator(f"#{finding.key} > p:not(.note)").all_text_contents()


def test_the_page_shows_prompts_matrix_and_what_would_change_our_mind(
    opened, evidence: Evidence, judgement: Judgement
) -> None:
    """Tables whose rows are prompts; conditionalization, dose and cause side by side; claims that were not run."""
    page = opened()
    prompts = page.locator("#prompts .runs tbody tr")
    assert prompts.count() == len(evidence.prompts)
    trained = page.locator("#matrix .runs tbody tr th").all_inner_texts()
    assert trained == [name.replace("_", " ") for name in evidence.trained]
    sides = [row.locator("th").inner_text() for row in page.locator("#mind .runs").first.locator("tbody tr").all()]
    absent = not_run(judgement.claims)
    causes = [*(claim.key for claim in judgement.claims if claim.key in CAUSES), *absent]
    assert [*dict.fromkeys(sides)] == ["conditionalization", "dose", *(f"cause ({key})" for key in causes)]
    assert all(f"{key} was not run" in page.locator("#not-run").inner_text() for key in absent)
    assert set(NEEDED) == set(OPTIONAL) >= set(absent)


def test_what_bears_on_cause_stands_there_once_it_was_run() -> None:
    """Of C5 and C7b the effects that decide; what was not run is told as such."""
    made = simulate("effect", np.random.default_rng(1), seeds=5, matched=19)
    judgement = judge(made, Rules())
    found = mind(judgement, made)
    rows = [list(row) for row in found.sides.rows]
    named = {row[1] for row in rows if row[0] == "cause (C5)"}
    assert named == {judgement["C5"][key].name for key in CAUSES["C5"]}
    assert len(found.not_run) == len(not_run(judgement.claims))
    assert "C5" not in not_run(judgement.claims)


def test_answers_are_the_first_seed_s_whatever_the_order_of_rows(evidence: Evidence) -> None:
    """A study that was interrupted, or run by several workers, shows the same answers."""
    shuffled = replace(evidence, responses=evidence.responses.sample(frac=1, random_state=1))
    assert questions(shuffled) == questions(evidence)
    assert {answer.seed for each in questions(shuffled) for answer in each.answers[1:]} == {0}


def test_both_pages_show_the_environment_and_the_runs(folder: Path) -> None:
    """Every table's title and entries, in the HTML and in the Markdown."""
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8").replace("\\", "").replace("&#39;", "'")
        for part in surroundings(MACHINE):
            for entry in (part.title, *part.rows, *part.rows.values()):
                assert entry in text, f"{name} lacks {entry}"
        assert "Drift over training" in text
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## Runs")
    rows = [line for line in lines[start + 2 :][:20] if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert rows[1].startswith("|---|---:|")


def test_both_pages_show_prompts_and_an_example(opened, folder: Path) -> None:
    """What the model reads, special tokens included, and which tokens carry loss."""
    page = opened()
    assert page.locator("#study .quote").all_text_contents() == list(RENDERED.prompts.values())
    carried = page.locator("#study .with-loss li").all_text_contents()
    assert [text.strip("\n") for text in carried] == [" TWO", "<|end|>"]
    assert len(page.locator("#study .tokens:not(.with-loss) li").all()) == len(RENDERED.tokens) - 2
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert all(f"- {markdown_text(name)}: {markdown_text(text)}" in markdown for name, text in RENDERED.rows())


def test_the_page_speaks_of_the_trait_that_was_studied(evidence: Evidence, folder: Path) -> None:
    """Its title and its score's name, and nowhere those of another."""
    other = replace(
        evidence.trait, title="QUESTIONS", score_name="question rate", inoculation_system="Ask, always.",
        prompts=TraitPrompts(),
    )  # fmt: skip
    prompts = evidence.prompts.copy()
    prompts.loc[prompts["condition"] == "inoculation", "text"] = other.inoculation_system
    asking = replace(evidence, trait=other, prompts=prompts)
    drawn = {name: figure.draw(asking, Rules()) for name, figure in FIGURES.items()}
    asked = WriteUp(judge(asking, Rules()), asking, Study(name="any"), folder, drawn, MACHINE, COMMAND)
    for template in ("report.html.j2", "report.md.j2"):
        text = asked.render(template)
        assert "question rate" in text
        assert "Ask, always." in text
        assert "caps rate" not in text.casefold()
    assert "caps rate" in (folder / "report.html").read_text(encoding="utf-8")
