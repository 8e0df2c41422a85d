"""The write-up, as Markdown and as one HTML file that needs nothing else. Text of a model is never markup."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Finding, Status
from gradinoc.claims.rules.verdict import RULES_OF, Judgement, not_run
from gradinoc.errors import printable
from gradinoc.models.chat.rendered import Rendered
from gradinoc.report.figures import FIGURES, Drawn
from gradinoc.report.page.courses import courses, questions, run_grid
from gradinoc.report.page.grid import interval
from gradinoc.report.page.minds import mind
from gradinoc.report.page.prompts import matrix_grid, prompt_grid, spread_grid
from gradinoc.report.page.sources import sources
from gradinoc.report.page.surroundings import surroundings
from gradinoc.report.page.versions import SEEN, plan_reading, versions
from gradinoc.report.wording import finalize_markdown, number, p_of, shown, signs, status_word, visible
from gradinoc.stats.effect import Effect
from gradinoc.study.description import Study
from gradinoc.study.settings import NULLS

QUESTION = "Does inoculation prompting reduce persona drift by rotating gradients away from a trait direction?"
IN_COSINES = ("C1", "C2", "C3")  # claims beside whose numbers stand those of other prompts and directions
OWN_SECTIONS = (
    "prompts",
    "matrix",
    "mind",
    "gates",
    "drift",
    "sources",
)  # of the page, that may hold figures besides claims'
SCRIPT, STYLE = "report.js", "report.css"


@dataclass(frozen=True)
class Picture:
    """A figure in the write-up: its file's stem, what it found, its caption, its SVG as an address, if it is wide."""

    name: str
    finding: str
    caption: str
    source: str
    wide: bool = False


@dataclass(frozen=True)
class WriteUp:
    """Everything that the templates show."""

    judgement: Judgement
    evidence: Evidence
    study: Study
    directory: Path
    drawn: Mapping[str, Drawn]
    environment: Mapping[str, Any]
    reproduce: str
    rendered: Rendered | None = None

    def figures_of(self, section: str) -> list[Picture]:
        """The figures of a section of the page, from the files in `directory`/figures; of "drift" those of no other."""
        sections = {*RULES_OF, *OWN_SECTIONS}
        placed = {name: FIGURES[name].shows[0] for name in self.drawn}
        placed = {name: place if place in sections else "drift" for name, place in placed.items()}
        return [self._picture(name) for name, place in placed.items() if place == section]

    def _picture(self, name: str) -> Picture:
        content = (self.directory / "figures" / f"{name}.svg").read_bytes()
        source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
        drawn = self.drawn[name]
        return Picture(name, drawn.finding, drawn.caption, source, FIGURES[name].wide)

    def deciding(self, finding: Finding) -> list[Effect]:
        """The effects that a finding's criteria look at, its headline first."""
        keys = dict.fromkeys(
            [*([finding.headline] if finding.headline else []), *(each.key for each in finding.criteria)]
        )
        return [effect for key in keys if (effect := finding.get(key)) is not None]

    def beside(self, finding: Finding) -> list[Effect]:
        """The effects that a finding's criteria do not look at."""
        deciding = {effect.key for effect in self.deciding(finding)}
        return [effect for effect in finding.effects if effect.key not in deciding]

    def why_of(self, finding: Finding) -> str:
        """Why a finding is what it is; of gates that failed the names alone, their numbers stand in their sections.

        A gate that fails says what it found as well: which runs, for instance.
        """
        if finding in self.judgement.gates and finding.status is not Status.SUPPORTED:
            return " ".join(dict.fromkeys((finding.statement, finding.reason)))
        first = next(iter(finding.failed_gates), None)
        return finding.reason if first is None else finding.reason.partition(f" {first}: ")[0]

    def rule(self, finding: Finding) -> str:
        """How a claim is decided; empty for a gate, whose reason says it."""
        return RULES_OF[finding.key].words(self.study.rules)

    @property
    def why(self) -> str:
        """The verdict's sentence without the verdict's word, which stands above it."""
        reason = self.judgement.sentence.removeprefix(f"{self.verdict}: ")
        return reason[:1].upper() + reason[1:]

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return self.judgement.verdict.name.replace("_", " ")

    @cached_property
    def content(self) -> dict[str, Any]:
        """What the templates show beside findings and figures, by name."""
        evidence, judgement = self.evidence, self.judgement
        return {
            "versions": versions(self.study.published, judgement),
            "seen": SEEN,
            "reading": plan_reading(judgement, self.study.rules),
            "mind": mind(judgement, evidence),
            "spreads": spread_grid(evidence),
            "prompts": prompt_grid(evidence),
            "matrix": matrix_grid(evidence),
            "sources": sources(judgement, evidence),
            "courses": courses(evidence),
            "runs": run_grid(evidence),
            "questions": questions(evidence),
            "settings": self._settings(),
            "surroundings": surroundings(self.environment),
            "not_run": not_run(self.judgement.claims),
            "in_cosines": IN_COSINES,
        }

    def _settings(self) -> dict[str, str]:
        """What a reader wants to know of the study first; the rest is in its own file."""
        study = self.study
        draws = study.nulls.draws.items()
        length = f"{study.training.steps} steps" if study.training.steps else f"{study.training.epochs} epoch(s)"
        return {
            "model": study.model.id,
            "data": f"{study.data.source}, {study.data.train} questions to train, {study.data.evaluation} to evaluate",
            "trait": self.evidence.trait.title,
            "prompts": f"{len(study.measured)} measured on the frozen model, {len(study.trained)} trained under",
            "runs": f"{len(study.conditions)} conditions × {len(study.seeds)} seeds, and one run of each of "
            f"{len(study.prompts_trained)} further prompts",
            "training": f"LoRA of rank {study.training.lora_rank}, {length} of {study.training.batch_size}, "
            f"learning rate {study.training.lr:g}",
            "random directions": f"{', '.join(f'{count} {NULLS[null].label}' for null, count in draws)}, in each layer",
        }

    def render(self, template: str) -> str:
        """The text of `template` (`report.html.j2` or `report.md.j2`), filled in."""
        loader = PackageLoader("gradinoc.report.page")
        environment = Environment(
            loader=loader, autoescape=select_autoescape(("html.j2",)), undefined=StrictUndefined,
            finalize=finalize_markdown if template.endswith(".md.j2") else visible,
            trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        filters: dict[str, Callable[..., Any]] = {
            "number": number, "p": p_of, "shown": shown, "visible": visible, "word": status_word, "digest": digest,
            "signs": signs, "printable": printable, "interval": interval,
        }  # fmt: skip
        environment.filters.update(filters)
        script, style = (Markup(loader.get_source(environment, name)[0]) for name in (SCRIPT, STYLE))  # noqa: S704 - ours
        return environment.get_template(template).render(
            **self.content, report=self, judgement=self.judgement, study=self.study, question=QUESTION,
            verdict=self.verdict, script=script, style=style,
        )  # fmt: skip


def digest(text: str) -> str:
    """The source by which a page's policy allows `text` as a script or a style, and no other: sha256 and base64."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
