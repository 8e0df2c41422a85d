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

from gradinoc.claims.finding import Finding
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import RULES_OF, Judgement
from gradinoc.errors import printable
from gradinoc.models.chat.rendered import OPEN, Rendered
from gradinoc.report.figures import FIGURES, Drawn
from gradinoc.report.page.audit import audit_losses, null_tables
from gradinoc.report.page.courses import courses, questions, run_columns, run_rows
from gradinoc.report.page.surroundings import surroundings
from gradinoc.report.wording import finalize_markdown, number, p_value, shown, signs, status_word, visible
from gradinoc.study.description import NULLS, Study
from gradinoc.study.prompts import MATCHED, system_prompt

QUESTION = "Does inoculation prompting reduce persona drift by rotating gradients away from a trait direction?"
NUMBERS_SHOWN = 6  # of a finding, before the rest is folded away
SCRIPT, STYLE = "report.js", "report.css"


@dataclass(frozen=True)
class Picture:
    """A figure in the write-up: its file's stem, what it found, its caption and its SVG as an address."""

    name: str
    finding: str
    caption: str
    source: str


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
        """The figures of a section of the page, from the files in `directory`/figures."""
        return [self._picture(name) for name, figure in FIGURES.items() if figure.shows[0] == section]

    def _picture(self, name: str) -> Picture:
        content = (self.directory / "figures" / f"{name}.svg").read_bytes()
        source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
        return Picture(name, self.drawn[name].finding, self.drawn[name].caption, source)

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
        evidence, rules = self.evidence, self.study.rules
        audit = audit_losses(evidence, rules)
        return {
            "audit": audit,
            "prompts": self._prompts(audit.prompt),
            "nulls": null_tables(evidence, rules),
            "courses": courses(evidence),
            "run_columns": run_columns(evidence),
            "run_rows": run_rows(evidence, rules.early_fraction),
            "questions": questions(evidence),
            "settings": self._settings(),
            "surroundings": surroundings(self.environment),
        }

    def _prompts(self, chosen: str | None) -> dict[str, str]:
        """Condition -> its system prompt in words."""
        named = {
            "": "no system prompt",
            MATCHED: chosen or "the harmless prompt whose loss is closest to inoculation's",
        }
        inoculation = self.evidence.trait.inoculation_system
        return {
            name: named.get(text) or system_prompt(text, inoculation) for name, text in self.study.conditions.items()
        }

    def _settings(self) -> dict[str, str]:
        """What a reader wants to know of the study first; the rest is in its own file."""
        study = self.study
        draws, untrained = study.nulls.draws.items(), ", ".join(map(shown, study.untrained))
        length = f"{study.training.steps} steps" if study.training.steps else f"{study.training.epochs} epoch(s)"
        return {
            "model": study.model.id,
            "data": f"{study.data.source}, {study.data.train} questions to train, {study.data.evaluation} to evaluate",
            "trait": self.evidence.trait.title,
            "runs": f"{len(study.runs) // len(study.seeds)} conditions × {len(study.seeds)} seeds"
            + (f"; {untrained} on the frozen model alone" if untrained else ""),
            "training": f"LoRA of rank {study.training.lora_rank}, {length} of {study.training.batch_size}, "
            f"learning rate {study.training.lr:g}",
            "random directions": f"{', '.join(f'{count} {NULLS[null].label}' for null, count in draws)} per layer",
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
            "number": number, "p": p_value, "shown": shown, "visible": visible, "word": status_word, "digest": digest,
            "signs": signs, "printable": printable,
        }  # fmt: skip
        environment.filters.update(filters)
        script, style = (Markup(loader.get_source(environment, name)[0]) for name in (SCRIPT, STYLE))  # noqa: S704 - ours
        return environment.get_template(template).render(
            **self.content, report=self, judgement=self.judgement, study=self.study, question=QUESTION,
            numbers_shown=NUMBERS_SHOWN, verdict=self.verdict, still_open=OPEN, script=script, style=style,
        )  # fmt: skip


def digest(text: str) -> str:
    """The source by which a page's policy allows `text` as a script or a style, and no other: sha256 and base64."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
