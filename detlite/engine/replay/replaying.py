"""Repeat the step of a bundle and tell what came of it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...utils.tables import fitted_table
from .bundle import StepBundle
from .finding import Finding, find
from .module_trace import ModuleCall
from .statistics import TensorStats, same_bits
from .step import Repetition, StepModel, Watched

_CALLS_BEFORE, _CALLS_AFTER = 6, 3


@dataclass(frozen=True)
class Replay:
    """A step that was repeated.

    Attributes:
        bundle: The step.
        device: Where it was repeated.
        repetition: What came of it.
        watched: What was seen on the way.
        finding: Where the first number that is not finite arose.
        synchronized: Whether the model has norms that use the batches of all processes.
    """

    bundle: StepBundle
    device: torch.device
    repetition: Repetition
    watched: Watched
    finding: Finding
    synchronized: bool

    @property
    def reproduced(self) -> bool:
        """Whether the same loss terms, or else the gradients, are not finite again."""
        there = _broken_terms(self.bundle.part_losses)
        here = _broken_terms(self.repetition.part_losses)
        if there or here:
            return there == here
        return not self.repetition.gradient_norm.isfinite()

    @property
    def same_bits(self) -> bool:
        """Whether every loss term of every part is what it was, to the last bit."""
        return all(same for *_, same in self._compared())

    def text(self) -> str:
        """All of it for people."""
        bundle, finding = self.bundle, self.finding
        lines = [
            f"iteration {bundle.iteration}, rank {bundle.rank} of {bundle.world_size}, "
            f"{bundle.precision}, {_counted(len(bundle.samples), 'image')} in "
            f"{_counted(len(bundle.parts), 'part')}; ran on {bundle.device}, repeated on "
            f"{self.device}",
            f"not finite then: {', '.join(bundle.why)}",
            "",
            "The first non-finite number arose",
            f"  {finding.title}",
            *(f"  {line}" for line in finding.details),
        ]
        if finding.call is not None:
            lines += [
                f"  input of {finding.call}: {finding.call.inputs}",
                f"  its output: {finding.call.outputs}",
            ]
        if self.watched.bad_before:
            lines += ["", "Not finite before the step began"]
            lines += [f"  {line}" for line in self.watched.bad_before.values()]
        calls = self._calls_around()
        if calls:
            lines += ["", "Modules around it, in the order in which they finished", _table(calls)]
        bad = self.repetition.bad_gradients
        if bad:
            names = ", ".join(f"{name} ({count})" for name, count in list(bad.items())[:8])
            lines += ["", f"Gradients with non-finite entries, {len(bad)} parameters: {names}"]
        return "\n".join([*lines, "", *self._comparison()])

    def _comparison(self) -> list[str]:
        rows = [
            (part, name, _number(there), _number(here), "yes" if same else "NO")
            for part, name, there, here, same in self._compared()
        ]
        headers = ("part", "term", "recorded", "repeated", "same bits")
        norms = [_number(self.bundle.gradient_norm), _number(self.repetition.gradient_norm)]
        lines = [
            "What came of the step",
            fitted_table(rows, headers, disable_numparse=True),
            f"gradient norm: recorded {norms[0]}"
            + (" (of all processes)" if self.bundle.world_size > 1 else "")
            + f", repeated {norms[1]}",
        ]
        if not self.same_bits:
            lines.append(
                "Other bits come of another device, version of torch or number of threads"
                + (", and of norms over all processes (SyncBN)" if self.synchronized else "")
                + (
                    f"; samples lack {', '.join(self.bundle.left_out)}"
                    if self.bundle.left_out
                    else ""
                )
            )
        lines.append("reproduced" if self.reproduced else "NOT reproduced")
        return lines

    def _compared(self) -> list[tuple[int, str, Tensor, Tensor, bool]]:
        return [
            (part, name, there[name], here[name], same_bits(there[name], here[name]))
            for part, (there, here) in enumerate(
                zip(self.bundle.part_losses, self.repetition.part_losses, strict=True)
            )
            for name in there
            if name in here
        ]

    def _calls_around(self) -> list[ModuleCall]:
        calls = [call for call in self.watched.modules.calls if call.outputs.count]
        found = self.finding.call
        if found is None:
            # By what is not finite, where the place is no module.
            found = next((call for call in calls if call.outputs.non_finite), None)
        if found is None or found not in calls:
            return []
        place = calls.index(found)
        return calls[max(0, place - _CALLS_BEFORE) : place + _CALLS_AFTER + 1]


def replay(bundle: StepBundle, *, device: str = "", trust_imports: bool = False) -> Replay:
    """Repeat a step, once as it was and once watched.

    Args:
        bundle: The step.
        device: Where to repeat it, as in a config; "" for the kind that it ran on.
        trust_imports: Run the Python files that the config of the bundle imports.

    Raises:
        ConfigError: The config needs components that are not there, or there is no such device.
        CheckpointError: The weights do not belong to the config.
    """
    step = StepModel(bundle, device=device, trust_imports=trust_imports)
    repetition, watched = step.repeat(), step.watch()
    return Replay(
        bundle,
        step.device,
        repetition,
        watched,
        find(step, watched, repetition),
        any(isinstance(module, nn.SyncBatchNorm) for module in step.model.modules()),
    )


def _broken_terms(part_losses: list[dict[str, Tensor]]) -> set[tuple[int, str]]:
    return {
        (part, name)
        for part, losses in enumerate(part_losses)
        for name, value in losses.items()
        if (name == "total_loss" or name.startswith("loss")) and not value.isfinite()
    }


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _number(value: Tensor) -> str:
    return f"{float(value):.9g}"


def _table(calls: list[ModuleCall]) -> str:
    def row(stats: TensorStats) -> tuple[str, ...]:
        return (
            str(stats.non_finite or ""),
            f"{stats.low:.4g}",
            f"{stats.high:.4g}",
            f"{stats.mean_abs:.4g}",
        )

    rows = [
        (
            call.path or "(the model)",
            call.kind,
            str(call.inputs.non_finite or ""),
            *row(call.outputs),
        )
        for call in calls
    ]
    headers = ("module", "class", "bad in", "bad out", "min", "max", "mean abs")
    return fitted_table(rows, headers, disable_numparse=True)
