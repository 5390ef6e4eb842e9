"""One training step as a file: all that it takes to repeat it, and what came of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_origin

import numpy as np
from torch import Tensor

from ...checkpoint import Checkpointer, load_checkpoint
from ...errors import CheckpointError
from ...structures import BatchShare, Instances
from ...utils.random_state import RandomState

KIND = "one training step"
FILE_NAME = "bundle"

Sample = dict[str, Any]


@dataclass(frozen=True)
class StepBundle:
    """A step of one process, as it was before the weights moved; tensors are on the CPU.

    Attributes:
        config: Of the run, as YAML.
        class_names: Of the model.
        iteration: Which step, from 0.
        rank: Which process.
        world_size: Of how many.
        device: Type of device that it ran on.
        precision: Of the forward pass.
        scale: What the gradient scaler multiplied the loss by; 1 without it.
        threads: Of torch on the CPU, which decide how its sums are rounded.
        deterministic: Whether torch used only algorithms that give the same bits every time.
        weights: State of the model before the step.
        other_buffers: Its buffers that the state leaves out.
        frozen: Names of parameters that have no gradient.
        in_eval: Names of modules that are in eval mode.
        parts: The samples of each part of this process's share, augmented.
        shares: What each part was told of the whole batch.
        part_losses: What came of each part, by name.
        metrics: The same of the whole batch, over all processes.
        gradient_norm: Over all parameters, summed over all processes.
        why: What is not finite, by name.
        groups: Name, learning rate and number of parameters of the optimizer's groups.
        modules: Norms of weights and gradients of each module, see ``module_norms``.
        bad_weights: How many entries are not finite, by parameter or buffer.
        bad_gradients: The same of gradients.
        left_out: Entries of samples that no file can hold, by name and type.
        random: The random states when the step began.
    """

    config: str
    class_names: list[str]
    iteration: int
    rank: int
    world_size: int
    device: str
    precision: str
    scale: float
    threads: int
    deterministic: bool
    weights: dict[str, Tensor]
    other_buffers: dict[str, Tensor]
    frozen: list[str]
    in_eval: list[str]
    parts: list[list[Sample]]
    shares: list[BatchShare | None]
    part_losses: list[dict[str, Tensor]]
    metrics: dict[str, Tensor]
    gradient_norm: Tensor
    why: list[str]
    groups: list[dict[str, Any]]
    modules: dict[str, dict[str, float]]
    bad_weights: dict[str, int]
    bad_gradients: dict[str, int]
    left_out: list[str]
    random: RandomState

    @property
    def samples(self) -> list[Sample]:
        """Those of all parts."""
        return [sample for part in self.parts for sample in part]


def write_bundle_file(bundle: StepBundle, folder: str | os.PathLike[str]) -> Path:
    """Write ``bundle.pth``, in the format of checkpoints."""
    content = {f.name: getattr(bundle, f.name) for f in fields(bundle)}
    identity = {"config": content.pop("config"), "class_names": content.pop("class_names")}
    content |= {
        "kind": KIND,
        "parts": [[_packed(sample) for sample in part] for part in bundle.parts],
        "shares": [
            share and {"canvas": list(share.canvas), "weights": share.weights.cpu()}
            for share in bundle.shares
        ],
        "random": bundle.random.to_dict(),
        # As in every checkpoint.
        "model": content.pop("weights"),
    }
    return Checkpointer(folder, keep=1, identity=identity).save(FILE_NAME, content)


def read_bundle(path: str | os.PathLike[str]) -> StepBundle:
    """Read a bundle; like every checkpoint, without running code of it.

    Args:
        path: The folder of the bundle, or its ``bundle.pth``.

    Raises:
        CheckpointError: It is missing, damaged, or no bundle.
    """
    path = Path(path)
    file = path / f"{FILE_NAME}.pth" if path.is_dir() else path
    content = load_checkpoint(file)
    if content.get("kind") != KIND:
        raise CheckpointError(
            f"{file} is a checkpoint, and no bundle of a step; those lie in non_finite/ of the "
            "run's output_dir, see what the run said when it stopped"
        )
    try:
        content["weights"] = content["model"]
        content["parts"] = [[_unpacked(each) for each in part] for part in content["parts"]]
        content["shares"] = [
            share and BatchShare(canvas=tuple(share["canvas"]), weights=share["weights"])
            for share in content["shares"]
        ]
        content["random"] = RandomState.from_dict(content["random"])
        bundle = StepBundle(**{f.name: content[f.name] for f in fields(StepBundle)})
        _check(bundle)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{file} cannot be used: {type(error).__name__}: {error}. It was changed after it was "
            "written, or another version of detlite wrote it"
        ) from error
    return bundle


def packable(value: Any) -> bool:
    """Whether a file that is read without running code can hold a value."""
    if value is None or isinstance(value, str | int | float | Tensor):
        return True
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf"
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and all(map(packable, value.values()))
    if isinstance(value, Instances):
        return all(map(packable, value.get_fields().values()))
    return isinstance(value, list | tuple) and all(map(packable, value))


def plain_tensor(tensor: Tensor) -> Tensor:
    """On the CPU, of the plain class, and with no more storage than it needs."""
    return tensor.detach().as_subclass(Tensor).cpu().clone()


def _packed(value: Any) -> Any:
    if isinstance(value, Instances):
        return {"image_size": list(value.image_size), "fields": _packed(value.get_fields())}
    if isinstance(value, Mapping):
        return {key: _packed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(each) for each in value]
    if isinstance(value, Tensor):
        return plain_tensor(value)
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(sample: Any) -> Sample:
    unpacked = dict(sample)
    for key, value in unpacked.items():
        if isinstance(value, dict) and set(value) == {"image_size", "fields"}:
            height, width = value["image_size"]
            unpacked[key] = Instances((height, width), **value["fields"])
    return unpacked


def _check(bundle: StepBundle) -> None:
    """Raise a ValueError where values do not fit each other or are of other types."""
    for field in fields(bundle):
        kind: Any = get_origin(field.type) or field.type
        value = getattr(bundle, field.name)
        if not isinstance(value, kind):
            raise ValueError(f"{field.name} is {value!r:.60}")
    if not bundle.parts or not len(bundle.parts) == len(bundle.shares) == len(bundle.part_losses):
        raise ValueError("parts, shares and part_losses are of different numbers")
    for sample in bundle.samples:
        if not isinstance(sample.get("image"), Tensor):
            raise ValueError("a sample has no image")
    tensors: Sequence[Any] = [*bundle.weights.values(), *bundle.other_buffers.values()]
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ValueError("a weight is no tensor")
