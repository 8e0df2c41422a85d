"""Does inoculation prompting work by rotating gradients away from a trait's direction? A study that answers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Where each public name lives; looked up on first use, so that importing the package loads no torch.
_HOMES = {
    "ActivationCollector": "measure.passes.hooks",
    "GradientCollector": "measure.passes.hooks",
    "StudyResult": "api",
    "Trait": "study.traits",
    "ablate": "measure.interventions.ablation",
    "add_gradient": "measure.interventions.gradients",
    "attribute": "measure.attribution.accounting",
    "compute_gradient_alignment": "measure.gradients.alignment",
    "extract_trait_direction": "measure.directions.extraction",
    "gradient_components": "measure.interventions.components",
    "leak": "measure.interventions.leakage",
    "load_directions": "report.exports",
    "load_model": "measure.loading.load",
    "load_trait": "study.traits",
    "measure_caps_rate": "study.traits",
    "project_gradient": "measure.interventions.gradients",
    "register_trait": "study.traits",
    "run_study": "api",
    "shrink_gradient": "measure.interventions.gradients",
    "steered": "measure.steering.steered",
    "train_with_gradient_logging": "measure.training.run",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """The public name `name`, from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gradinoc' has no attribute {name!r}; public names are {__all__}")
    return getattr(import_module(f"gradinoc.{_HOMES[name]}"), name)
