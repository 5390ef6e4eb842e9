"""What networks are fed with, and what comes out of them, alike for all kinds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .report import Broken
from .subject import IMAGE_SIZE, Size, Subject

NETWORKS = ("backbone", "neck", "extra levels", "head")


def make_input(
    subject: Subject, *, size: Size = IMAGE_SIZE, num_images: int = 2, seed: int = 0
) -> Any:
    """What ``forward`` of a network gets: images, a dict of maps, or a list of levels.

    Args:
        subject: A network.
        size: (height, width) of the padded images.
        num_images: N.
        seed: Of the values.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int, stride: int) -> Tensor:
        height, width = (-(-side // stride) for side in size)
        return torch.randn(num_images, channels, height, width, generator=generator)

    if subject.kind == "backbone":
        return draw(3, 1)
    if subject.kind == "head":
        return [draw(spec.channels, spec.stride) for spec in subject.around.levels.values()]
    shapes = subject.computed()["input_shape"]
    return {name: draw(spec.channels, spec.stride) for name, spec in shapes.items()}


def run(network: nn.Module, value: Any) -> dict[str, Tensor]:
    """Call a network; its output by name, whatever its kind returns."""
    return by_name(network(value))


def by_name(output: Any) -> dict[str, Tensor]:
    """A network's output by name: maps by theirs, a head's by what they are."""
    if isinstance(output, Mapping):
        named = dict(output)
    elif isinstance(output, tuple):
        names = ("logits", "deltas", "centerness")
        named = dict(zip(names, output, strict=False))
    elif isinstance(output, list):
        named = {f"map {i}": value for i, value in enumerate(output)}
    else:
        raise Broken(f"forward returns {type(output).__name__}, neither tensors nor a dict of them")
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise Broken(f"'{name}' is {type(value).__name__}, no tensor")
    return named


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested lists and dicts, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def each_tensor(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same nested lists and dicts with each tensor changed."""
    return pytree.tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, value)


def check_same(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    what: str,
    *,
    tolerance: float = 1e-4,
) -> None:
    """Compare outputs by name.

    Args:
        found: Outputs.
        expected: What they should be.
        what: Where ``found`` is from, for the message.
        tolerance: Greatest difference, as a share of the largest number; 0 for the same bits.

    Raises:
        Broken: They differ.
    """
    if [*found] != [*expected]:
        raise Broken(f"{what} gives {', '.join(found)}; expected {', '.join(expected)}")
    for name, value in found.items():
        right = expected[name]
        if value.shape != right.shape:
            raise Broken(
                f"{what}: '{name}' has shape {tuple(value.shape)}; expected {tuple(right.shape)}"
            )
        value, right = value.detach().double(), right.detach().double()
        scale = float(right.abs().max()) if right.numel() else 0.0
        difference = float((value - right).abs().max()) if right.numel() else 0.0
        if not difference <= tolerance * scale:
            raise Broken(
                f"{what}: '{name}' differs by up to {difference:.3g}, "
                f"in numbers of up to {scale:.3g}"
            )


def check_finite(outputs: Mapping[str, Tensor], what: str) -> None:
    """Raise ``Broken`` unless all values are finite."""
    for name, value in outputs.items():
        wrong = int((~torch.isfinite(value)).sum())
        if wrong:
            raise Broken(f"{what}: {wrong} of {value.numel()} values of '{name}' are not finite")


def shapes_text(values: Sequence[Tensor]) -> str:
    """Shapes for a message."""
    return ", ".join(str(tuple(value.shape)) for value in values)
