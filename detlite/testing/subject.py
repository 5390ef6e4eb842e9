"""The component at hand, and the small model that it is put into."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..modeling import BOX_CODER_REGISTRY, BoxCoder
from ..registry import Block, Registry
from ..structures import ShapeSpec

Size = tuple[int, int]

IMAGE_SIZE: Size = (64, 96)
ODD_SIZE: Size = (97, 131)


def _maps() -> dict[str, ShapeSpec]:
    return {"res3": ShapeSpec(16, 8), "res4": ShapeSpec(24, 16), "res5": ShapeSpec(32, 32)}


def _levels() -> dict[str, ShapeSpec]:
    return {f"p{i}": ShapeSpec(32, 2**i) for i in (3, 4, 5)}


@dataclass(frozen=True)
class Surroundings:
    """What a component is given by the rest of the model and by the data.

    Attributes:
        maps: The backbone's ``output_shape()``.
        levels: The neck's ``output_shape()``.
        num_anchors: A.
        num_classes: K.
        box_coder: A box coder's block.
    """

    maps: Mapping[str, ShapeSpec] = field(default_factory=_maps)
    levels: Mapping[str, ShapeSpec] = field(default_factory=_levels)
    num_anchors: int = 3
    num_classes: int = 5
    box_coder: Block = field(default_factory=lambda: Block(name="DeltaBoxCoder"))

    def make_box_coder(self) -> BoxCoder:
        """The box coder of the model."""
        coder: BoxCoder = BOX_CODER_REGISTRY.build(self.box_coder)
        return coder


@dataclass(frozen=True)
class Subject:
    """A component under test.

    Attributes:
        registry: Where it is registered.
        block: Its block, complete.
        component: The class or function itself.
        around: The rest of the model.
        compile: Whether to try ``torch.compile``.
    """

    registry: Registry
    block: Block
    component: Callable[..., Any]
    around: Surroundings = Surroundings()
    compile: bool = True

    @property
    def kind(self) -> str:
        """Its kind, as its registry says it."""
        return self.registry.kind

    def build(self, *, weights_seed: int = 0, **changed: Any) -> Any:
        """Make a new one.

        Args:
            weights_seed: Of its first weights.
            changed: Computed arguments that shall be others than the surroundings'.
        """
        with fixed_random_state(weights_seed):
            return self.registry.build(self.block, **{**self.computed(), **changed})

    def computed(self) -> dict[str, Any]:
        """What the surroundings give to a component of this kind."""
        around = self.around
        maps = dict(around.maps)
        neck_levels = {
            f"p{spec.stride.bit_length() - 1}": ShapeSpec(32, spec.stride) for spec in maps.values()
        }
        given: dict[str, dict[str, Any]] = {
            "meta-arch": {"num_classes": around.num_classes},
            "batch transform": {"num_classes": around.num_classes},
            "loss": {"num_classes": around.num_classes},
            "neck": {"input_shape": maps},
            "extra levels": {"input_shape": {**maps, **neck_levels}, "out_channels": 32},
            "anchor generator": {"strides": [spec.stride for spec in around.levels.values()]},
            "head": {
                "input_shape": dict(around.levels),
                "num_anchors": around.num_anchors,
                "num_classes": around.num_classes,
                "code_size": around.make_box_coder().code_size,
            },
        }
        return given.get(self.kind, {})

    def with_block(self, block: Block) -> "Subject":
        """The same component with other values of its keys."""
        return replace(self, block=block)


@contextlib.contextmanager
def fixed_random_state(seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed; then as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_boxes(count: int, size: Size = IMAGE_SIZE, seed: int = 0) -> torch.Tensor:
    """Boxes (count, 4) of some area within an image of (height, width)."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    scale = torch.tensor([width, height, width, height])
    corners = torch.rand(count, 2, 2, generator=generator)
    low, high = corners.min(dim=1).values * 0.8, corners.max(dim=1).values * 0.8 + 0.2
    return torch.cat([low, high], dim=1) * scale
