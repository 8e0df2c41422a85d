"""Interventions in training: what is done to a run's gradients, or to its residual stream, in each of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from gradinoc.measure.fast import Parts, frozen_batch
from gradinoc.measure.interventions.ablation import Ablation
from gradinoc.measure.interventions.bases import alike, along, bases
from gradinoc.measure.interventions.components import components_of, gradients_beside
from gradinoc.measure.interventions.gradients import giving
from gradinoc.measure.interventions.hooks import GradientHooks, projected
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.steering.chosen import ALL, ChosenTokens
from gradinoc.measure.steering.steered import Steering
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.steered import apart

Kind = Literal["project", "steer", "ablate", "shrink", "restore"]
IN_STREAM = ("steer", "ablate")  # what forward passes are changed by


@dataclass(frozen=True)
class Intervention:
    """What is done in every training step of a run, at every token, but where restored.

    Attributes:
        kind: `"project"`: the component along v of the gradient δ of each named block's output becomes 1 − strength
            times what it is in a pass beside the step's, of the same batch, in which nothing is projected: removed at
            1, halved at 0.5, doubled at −1, reflected at 2, behind every block alike. (`gradinoc.project_gradient`
            changes at each block what comes from above, where it has been changed already, so that what is left goes
            with the power of the blocks; at 1 both are the same, and no pass is made.) `"shrink"`: δ has, token by
            token, the length that it has in such a pass in which the component is removed. `"restore"`: at the last
            prompt token and the answer's tokens, δ + strength · (a − δ·v) v, where a is the component of the same
            examples under the prompt of `Run.counterpart`, at the weights as they are, see `gradinoc.add_gradient`.
            `"steer"`: h + strength · v forward, see `gradinoc.steered` (preventative steering, Chen et al. 2025,
            https://arxiv.org/abs/2507.21509). `"ablate"`: h − strength · (h·v) v forward, see `gradinoc.ablate`.
        directions: layer (0-based block) -> v, `[hidden]`: of any length, which counts for `"steer"` alone. For the
            others `[rank, hidden]` too, with orthonormal rows.
        strength: a number; of `"shrink"` 1, or 0 for nothing.

    Raises:
        ValueError: an unknown kind, or a strength that it has not.
    """

    kind: Kind
    directions: Mapping[int, Tensor]
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"Intervention {self.kind!r}: expected one of {get_args(Kind)}")
        if self.kind == "shrink" and self.strength not in (0, 1):
            raise ValueError(f"Intervention 'shrink' has no strength: expected 1, received {self.strength}")


def takes_a_pass_beside(kind: str, strength: float) -> bool:
    """Whether each step of a run with the intervention takes a second pass of its batch."""
    return kind == "shrink" or (kind == "project" and strength not in (0, 1))


class Arm(NamedTuple):
    """One of the runs that are trained together: its adapter's name, what is done to it, and the examples for that."""

    adapter: str
    interventions: Sequence[Intervention]
    examples: Sequence[Encoded]
    counterpart: Sequence[Encoded] | None


class _Beside(NamedTuple):
    """A run whose gradient is to have something in common with that of a pass of the same batch, beside the step's.

    Attributes:
        run: its place.
        layers: of the intervention.
        reduce: (layer, gradient `[tokens, hidden]` of its own tokens) -> what is had from that pass.
        within: what is in place in it.
        found: layer -> that, in the step to come.
    """

    run: int
    layers: Sequence[int]
    reduce: Callable[[int, Tensor], Tensor]
    within: Sequence[ChosenTokens]
    found: dict[int, Tensor]


class _Restored(NamedTuple):
    """A run whose gradient's components are those of its examples under another prompt."""

    run: int
    basis: Mapping[int, Tensor]  # layer -> [rank, hidden]
    components: dict[int, Tensor]  # layer -> those of the step to come


class Interventions:
    """Those of runs that are trained together; each acts on its own run's tokens alone.

    Attributes:
        apart: whether examples must share no tokens in a batch.

    Args:
        model: with an adapter for each of the runs.
        arms: the runs, in the order in which they lie in a batch.
        parts: by which a pass is through one of the adapters.
        pad: id of the padding token.

    Raises:
        ValueError: directions that are not as they should be, or a counterpart that is missing, not wanted, or of other
            completions.
    """

    def __init__(self, model: nn.Module, arms: Sequence[Arm], parts: Parts, pad: int) -> None:
        self._model, self._arms, self._parts, self._pad = model, arms, parts, pad
        self._restored: list[_Restored] = []
        self._beside: list[_Beside] = []
        for arm in arms:
            _ensure_counterpart(arm)
        of_run = [(run, each) for run, arm in enumerate(arms) for each in arm.interventions]
        self._hooks = [self._made(run, each) for run, each in of_run if each.strength]
        self.apart = any(each.kind == "shrink" for _, each in of_run)

    def _made(self, run: int, what: Intervention) -> ChosenTokens:
        model, v, amount = self._model, what.directions, what.strength
        own = run if len(self._arms) > 1 else None
        if what.kind in IN_STREAM:
            return _in_stream(model, what, own)
        if what.kind == "restore":
            restored = _Restored(run, alike(bases(model, v)), {})
            self._restored.append(restored)
            return giving(model, v, amount, restored.components, run=own)
        if what.kind == "shrink":
            return self._as_long(run, own, v)
        if not takes_a_pass_beside(what.kind, amount):
            return GradientHooks.along(model, v, amount, projected, ALL, run=own)
        basis = alike(bases(model, v))
        beside = self._made_beside(run, v, lambda layer, delta: (1 - amount) * along(delta, basis[layer], None))
        return giving(model, v, 1.0, beside.found, ALL, own)

    def _as_long(self, run: int, own: int | None, v: Mapping[int, Tensor]) -> GradientHooks:
        """Hooks that give each token's gradient the length that it has where the component along v is removed."""
        projecting = GradientHooks.along(self._model, v, 1.0, projected, ALL, run=own)

        def length(_layer: int, delta: Tensor) -> Tensor:
            found: Tensor = vector_norm(delta, dim=-1, keepdim=True)
            return found

        beside = self._made_beside(run, v, length, projecting)

        def shortened(layer: int, delta: Tensor, _rows: Tensor | None) -> Tensor:
            present = length(layer, delta).clamp(min=torch.finfo(delta.dtype).tiny)
            return delta * (beside.found[layer].to(delta) / present)

        return GradientHooks(self._model, sorted(v), shortened, ALL, run=own, linear=False)

    def _made_beside(
        self, run: int, layers: Iterable[int], reduce: Callable[[int, Tensor], Tensor], *within: ChosenTokens
    ) -> _Beside:
        own = run if len(self._arms) > 1 else None
        changes = (each for each in self._arms[run].interventions if each.kind in IN_STREAM and each.strength)
        stream = [_in_stream(self._model, each, own) for each in changes]
        self._beside.append(_Beside(run, sorted(layers), reduce, (*stream, *within), {}))
        return self._beside[-1]

    @contextmanager
    def in_step(self, rows: Sequence[int], batch: Batch) -> Iterator[None]:
        """Inside the block, a step's forward and backward pass, they are in place.

        Hooks that were in place before see gradients after they are changed, which is what weights learn from.

        Args:
            rows: numbers of the batch's examples, run by run, as many of each.
            batch: these.
        """
        size = len(rows) // len(self._arms)
        for beside in self._beside:
            beside.found.update(self._found_beside(beside, batch, size))
        for each in self._restored:
            own = rows[each.run * size : (each.run + 1) * size]
            each.components.update(self._components(self._arms[each.run], own, each.basis))
        with ExitStack() as stack:
            for hooks in reversed(self._hooks):  # the last to be in place is the first that a gradient meets
                stack.enter_context(hooks)
            yield

    def _found_beside(self, beside: _Beside, batch: Batch, size: int) -> dict[int, Tensor]:
        """What a pass of the batch has that a run's gradient is to have, at the run's own tokens."""
        first, alone = sum(batch.parts[: beside.run]), len(self._arms) == 1
        own = slice(None) if alone else slice(first, first + batch.parts[beside.run])
        dtype = torch.promote_types(next(self._model.parameters()).dtype, torch.float32)

        def reduce(layer: int, gradient: Tensor) -> Tensor:
            return beside.reduce(layer, gradient.flatten(0, 1)[own].to(dtype))

        self._parts.sizes = batch.parts
        return gradients_beside(self._model, batch, beside.layers, reduce, 1 / size, beside.within)

    def _components(self, arm: Arm, rows: Sequence[int], basis: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Those of a run's examples under the other prompt, of the mean of their losses, as a step goes along it."""
        counterpart = arm.counterpart or ()
        batch = frozen_batch(self._model, [counterpart[row] for row in rows], self._pad)
        with self._parts.through(arm.adapter):
            return components_of(self._model, batch, basis, 1 / len(rows))


@contextmanager
def in_stream(model: nn.Module, interventions: Sequence[Intervention]) -> Iterator[None]:
    """Inside the block each pass of a run's adapter is as a training step's: its interventions on the stream are there.

    They belong to what a run was trained under, as its system prompt does.
    """
    with ExitStack() as stack:
        for each in reversed(interventions):
            if each.kind in IN_STREAM and each.strength:
                stack.enter_context(_in_stream(model, each, None))
        yield


def _in_stream(model: nn.Module, what: Intervention, run: int | None) -> ChosenTokens:
    """The hooks of an intervention on the stream: on the tokens of one of several runs in a batch, or on all (None)."""
    if what.kind == "steer":
        return Steering(model, what.directions, what.strength, ALL, run)
    # Behind the hooks that log: what they see is the gradient that goes on to the weights.
    return Ablation(model, what.directions, what.strength, ALL, run, before=True)


@contextmanager
def intervening(
    model: nn.Module, arms: Sequence[Arm], parts: Parts, pad: int
) -> Iterator[Callable[[Sequence[int], Batch], AbstractContextManager[None]]]:
    """Inside the block batches are made as `Interventions` need them, whose `in_step` it gives."""
    interventions = Interventions(model, arms, parts, pad)
    with apart(model) if interventions.apart else nullcontext():
        yield interventions.in_step


def _ensure_counterpart(arm: Arm) -> None:
    """Refuse examples under another prompt that are missing, not wanted, or other ones."""
    wanted = any(each.kind == "restore" for each in arm.interventions)
    if wanted != (arm.counterpart is not None):
        raise ValueError(
            "A counterpart, the same examples under another prompt: expected for 'restore', and only there"
        )
    completions = [
        [each.ids[each.prompt_length :] for each in those] for those in (arm.examples, arm.counterpart or ())
    ]
    if wanted and completions[0] != completions[1]:
        raise ValueError(
            f"A counterpart of {len(completions[1])} examples: expected the {len(completions[0])} of the run, in their "
            "order, with the same completion tokens"
        )
