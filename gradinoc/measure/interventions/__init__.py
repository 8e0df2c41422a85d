"""Interventions at decoder blocks, in the backward or forward pass: exact, and removable."""

from gradinoc.measure.interventions.ablation import ablate
from gradinoc.measure.interventions.components import gradient_components
from gradinoc.measure.interventions.gradients import add_gradient, project_gradient, shrink_gradient
from gradinoc.measure.interventions.leakage import leak

__all__ = ["ablate", "add_gradient", "gradient_components", "leak", "project_gradient", "shrink_gradient"]
