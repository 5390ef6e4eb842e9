"""Repeat a step: as it was, and once more with everything in it watched."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...checkpoint import load_weights
from ...config.loader import parse_config
from ...errors import CheckpointError
from ...modeling import MetaArch, build_meta_arch
from ...structures import BatchShare, Instances
from ..device import select_device, use_deterministic_algorithms
from ..precision import Precision, autocast, memory_format
from .bundle import StepBundle
from .gradient_trace import GradientOrigin, GradientTrace
from .module_trace import ModuleTrace
from .operator_trace import OperatorTrace, Origin
from .statistics import TensorStats, is_finite


@dataclass
class Repetition:
    """What came of a step.

    Attributes:
        part_losses: What the model returned for each part.
        bad_gradients: How many entries are not finite, by parameter.
        gradient_norm: Of this process's parts alone.
        largest_gradient: The parameter with the largest entry, and that entry.
    """

    part_losses: list[dict[str, Tensor]] = field(default_factory=list)
    bad_gradients: dict[str, int] = field(default_factory=dict)
    gradient_norm: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    largest_gradient: tuple[str, float] = ("", 0.0)


@dataclass
class Watched:
    """What was seen while a step was repeated, up to the first number that is not finite.

    Attributes:
        bad_before: What is not finite before the step begins, by what to call it: in words.
        part: In which part the first one came up; -1 if everything is finite.
        modules: What the modules did in that part, or in the last one.
        origins: Where the loss terms that are not finite have it from, by term.
        gradient: Where the first gradient that is not finite came up.
        in_sum: Parameters whose gradients are finite in each part, but not their sum.
    """

    bad_before: dict[str, str] = field(default_factory=dict)
    part: int = -1
    modules: ModuleTrace = field(default_factory=ModuleTrace)
    origins: dict[str, list[Origin]] = field(default_factory=dict)
    gradient: GradientOrigin | None = None
    in_sum: list[str] = field(default_factory=list)


class StepModel:
    """The model of a bundle, with which its step can be repeated any number of times.

    Args:
        bundle: The step.
        device: Where to repeat it, as in a config; "" for the kind that it ran on, where there is
            one.
        trust_imports: Run the Python files that the config imports.

    Raises:
        ConfigError: The config needs components that are not there, or there is no such device.
        CheckpointError: The weights do not belong to the config.
    """

    def __init__(
        self, bundle: StepBundle, *, device: str = "", trust_imports: bool = False
    ) -> None:
        self.bundle = bundle
        source = f"the config within the bundle of iteration {bundle.iteration}"
        config = parse_config(bundle.config, source, trust_imports=trust_imports)
        same_kind = bundle.device != "cuda" or torch.cuda.is_available()
        self.device = select_device(device or (bundle.device if same_kind else "cpu"))
        self.precision: Precision = bundle.precision  # type: ignore[assignment]
        layout = memory_format(config.train.channels_last, self.precision, self.device)
        model = build_meta_arch(config.model, bundle.class_names)
        self.model: MetaArch = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.shares = [
            share and BatchShare(canvas=share.canvas, weights=share.weights.to(self.device))
            for share in bundle.shares
        ]

    def repeat(self) -> Repetition:
        """The step as it was."""
        result = Repetition()
        with self._as_it_was() as scaler:
            for index in range(len(self.bundle.parts)):
                losses, total = self._forward(index)
                scaler.scale(total).backward()
                detached = {"total_loss": total, **losses}
                result.part_losses.append({n: v.detach().cpu() for n, v in detached.items()})
            gradients = self._unscaled_gradients(scaler)
            stats = {name: TensorStats.of(gradient) for name, gradient in gradients.items()}
            result.bad_gradients = {n: s.non_finite for n, s in stats.items() if s.non_finite}
            result.gradient_norm = nn.utils.get_total_norm(list(gradients.values())).cpu()
            largest = {name: max(-s.low, s.high) for name, s in stats.items()}
            name = max(largest, key=lambda each: largest[each], default="")
            result.largest_gradient = (name, largest.get(name, 0.0))
        return result

    def watch(self) -> Watched:
        """The step again, until the first number that is not finite."""
        watched = Watched()
        with self._as_it_was() as scaler:
            for index in range(len(self.bundle.parts)):
                known = self._known_tensors(index)
                bad = {name: tensor for name, tensor in known.items() if not is_finite(tensor)}
                watched.bad_before |= {name: _described(name, bad[name]) for name in bad}
            for index in range(len(self.bundle.parts)):
                watched.part = index
                if self._watch_part(index, watched, scaler):
                    return watched
        watched.part = -1
        return watched

    def _known_tensors(self, index: int) -> dict[str, Tensor]:
        """What is there before a part is computed, by what to call it."""
        known = {f"weight {name}": p.detach() for name, p in self.model.named_parameters()}
        known |= {f"buffer {name}": buffer for name, buffer in self.model.named_buffers()}
        for i, sample in enumerate(self.bundle.parts[index]):
            name = f"{sample.get('file_name', '?')} ({i} of part {index})"
            known[f"image {name}"] = sample["image"]
            truth = sample.get("instances")
            fields = dict(truth.get_fields()) if isinstance(truth, Instances) else {}
            fields |= {key: value for key, value in sample.items() if key.startswith("gt_")}
            known |= {
                f"{field} of {name}": value
                for field, value in fields.items()
                if isinstance(value, Tensor)
            }
        share = self.shares[index]
        return known | ({f"loss weights of part {index}": share.weights} if share else {})

    def _watch_part(self, index: int, watched: Watched, scaler: torch.amp.GradScaler) -> bool:
        """Whether something came up in this part."""
        watched.modules = modules = ModuleTrace()
        operators = OperatorTrace(modules, self._known_tensors(index))
        # It keeps the stack of calls with each node; what it would say itself is not needed.
        anomaly = torch.autograd.set_detect_anomaly(True, check_nan=False)
        with modules.watch(self.model), operators, anomaly:
            losses, total = self._forward(index)
        losses = {"total_loss": total, **losses}
        terms = {n: v for n, v in losses.items() if n.startswith("loss") or n == "total_loss"}
        broken = {name: value for name, value in terms.items() if not is_finite(value)}
        if broken:
            watched.origins = {name: operators.origins_of(value) for name, value in broken.items()}
            return True
        before = [name for name, p in self._trained() if p.grad is not None and is_finite(p.grad)]
        scaled = scaler.scale(total)
        gradients = GradientTrace(scaled, modules.owners)
        scaled.backward()
        watched.gradient = gradients.origin
        bad = {name for name, p in self._trained() if p.grad is not None and not is_finite(p.grad)}
        watched.in_sum = [name for name in before if name in bad and gradients.origin is None]
        return gradients.origin is not None or bool(watched.in_sum)

    def _forward(self, index: int) -> tuple[Mapping[str, Tensor], Tensor]:
        """The losses of a part, and their total."""
        part, share = self.bundle.parts[index], self.shares[index]
        with autocast(self.device, self.precision):
            losses = self.model(part) if share is None else self.model(part, share)
        terms = [value for name, value in losses.items() if name.startswith("loss")]
        return losses, torch.stack(terms).sum()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def _unscaled_gradients(self, scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
        scaler.unscale_(torch.optim.SGD([p for _, p in self._trained()], lr=0.0))
        return {name: p.grad for name, p in self._trained() if p.grad is not None}

    @contextmanager
    def _as_it_was(self) -> Iterator[torch.amp.GradScaler]:
        """The model, torch and the random numbers as when the step began."""
        bundle, model = self.bundle, self.model
        load_weights(model, bundle.weights, f"the bundle of iteration {bundle.iteration}")
        try:
            buffers = dict(model.named_buffers())
            for name, value in bundle.other_buffers.items():
                buffers[name].copy_(value)
            model.train().requires_grad_(True).zero_grad(set_to_none=True)
            for name in bundle.frozen:
                model.get_parameter(name).requires_grad_(False)
            for name in bundle.in_eval:
                # This module alone; those inside of it are named themselves.
                model.get_submodule(name).training = False
        except (KeyError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the bundle of iteration {bundle.iteration} is of another model than its config "
                f"builds: {error}"
            ) from error
        threads = torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        try:
            torch.set_num_threads(bundle.threads)
            if bundle.deterministic:
                use_deterministic_algorithms()
            bundle.random.restore()
            yield torch.amp.GradScaler(
                self.device.type, enabled=self.precision == "fp16", init_scale=bundle.scale
            )
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def _described(name: str, tensor: Tensor) -> str:
    """Such as "image a.jpg (0 of part 0): 3 NaN of 12288, ...; the first at channel 0, ..."."""
    bad = tensor.detach().isfinite().logical_not().nonzero()[0].tolist()
    is_image = name.startswith("image ") and len(bad) == 3
    place = "channel {}, row {}, column {}".format(*bad) if is_image else f"index {bad}"
    return f"{name}: {TensorStats.of(tensor)}; the first at {place}"
