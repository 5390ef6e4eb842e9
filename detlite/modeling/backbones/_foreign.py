"""What backbones made of another library's models share."""

import copy
import math
from abc import abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...structures import ShapeSpec
from ..interfaces import Backbone

# Height and width of the images that a model is looked at with. They differ, so that the channels
# of a map cannot be taken for one of its sides; 224 is what most models are published for.
PROBE_SIZE = (224, 192)
_COARSEST = 32
_FINEST = 4


@dataclass(frozen=True)
class FeatureMap:
    """A map that a model makes.

    Attributes:
        channels: C.
        stride: In pixels of the image.
        channels_last: Whether it comes as (N, H, W, C).
    """

    channels: int
    stride: int
    channels_last: bool

    @property
    def name(self) -> str:
        """By its stride, as ResNet's stages: res2 at stride 4 to res5 at stride 32."""
        return f"res{int(math.log2(self.stride))}"


def feature_map(shape: Sequence[int], size: tuple[int, int] = PROBE_SIZE) -> FeatureMap | None:
    """What a tensor of this shape is for images of ``size``; None if it is no map."""
    if len(shape) != 4:
        return None
    for stride in (1, 2, 4, 8, 16, 32):
        sides = (size[0] // stride, size[1] // stride)
        if tuple(shape[2:]) == sides:
            return FeatureMap(shape[1], stride, channels_last=False)
        if tuple(shape[1:3]) == sides:
            return FeatureMap(shape[3], stride, channels_last=True)
    return None


def choose_maps(
    found: Iterable[FeatureMap], out_features: Sequence[str], model: str
) -> dict[str, FeatureMap]:
    """The maps asked for by name, from fine to coarse; of one stride the last that was found.

    Raises:
        ValueError: The model does not make them.
    """
    maps = {each.name: each for each in found if _FINEST <= each.stride <= _COARSEST}
    if len(maps) < 2:
        raise ValueError(
            f"model '{model}' makes no pyramid of maps: of the strides 4, 8, 16 and 32 it has "
            f"{', '.join(str(each.stride) for each in maps.values()) or 'none'}. Take a "
            "convolutional model, or a transformer of several stages"
        )
    missing = [name for name in out_features if name not in maps]
    if missing:
        raise ValueError(
            f"out_features must be among {', '.join(sorted(maps))} for model '{model}', got "
            f"{', '.join(missing)}"
        )
    return {name: maps[name] for name in sorted(out_features)}


def without_weights(model: nn.Module) -> nn.Module:
    """A copy for evaluation on the meta device, to be looked at without computing anything."""
    return copy.deepcopy(model).to("meta").eval()


class ForeignBackbone(Backbone):
    """A backbone around modules of another library.

    Models that round sizes down get images padded with 0 to a multiple of the coarsest stride, and
    their maps are cut, so that sizes are those of the contract.

    Args:
        maps: What ``_maps`` returns, from fine to coarse.
    """

    def __init__(self, maps: Mapping[str, FeatureMap]) -> None:
        super().__init__()
        self.maps = dict(maps)
        self.pads = False

    @abstractmethod
    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        """The model's own maps of images (N, 3, H, W), by name."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each returned map."""
        return {name: ShapeSpec(each.channels, each.stride) for name, each in self.maps.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to the maps asked for."""
        height, width = images.shape[-2:]
        if self.pads:
            divisor = max(each.stride for each in self.maps.values())
            images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
        outputs = self._maps(images)
        features = {}
        for name, each in self.maps.items():
            x = outputs[name]
            if each.channels_last:
                x = x.permute(0, 3, 1, 2)
            if self.pads:
                x = x[..., : -(-height // each.stride), : -(-width // each.stride)]
            features[name] = x
        return features

    def _look(self, model: str) -> None:
        """Find out whether sizes are rounded down, and take out what has no part in the maps.

        Raises:
            ValueError: The maps do not have the sizes that their strides say.
        """
        probe = without_weights(self)
        assert isinstance(probe, ForeignBackbone)
        size = (PROBE_SIZE[0] + 5, PROBE_SIZE[1] + 3)
        self.pads = probe.pads = not _has_contract_sizes(probe, size)
        if self.pads and not _has_contract_sizes(probe, size):
            raise ValueError(
                f"model '{model}' does not make maps of the sizes that its strides say for images "
                f"of {size[0]} x {size[1]} pixels; take another one"
            )
        sum(
            x.sum() for x in probe(torch.empty(1, 3, *PROBE_SIZE, device="meta")).values()
        ).backward()
        unused = {name for name, p in probe.named_parameters() if p.grad is None}
        idle = list(_idle_modules(probe, "", unused))
        for path in idle:
            probe.set_submodule(path, nn.Identity())
        if _has_contract_sizes(probe, PROBE_SIZE):
            for path in idle:
                self.set_submodule(path, nn.Identity())
        # What lies between the others stays, untrained.
        for name, parameter in self.named_parameters():
            if name in unused:
                parameter.requires_grad_(False)


def _has_contract_sizes(probe: ForeignBackbone, size: tuple[int, int]) -> bool:
    with torch.no_grad():
        try:
            features = probe(torch.empty(1, 3, *size, device="meta"))
        # A model may assert a multiple of something, or miss what was taken out of it.
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
            return False
    return all(
        tuple(features[name].shape[-2:]) == tuple(-(-side // each.stride) for side in size)
        for name, each in probe.maps.items()
    )


def _idle_modules(module: nn.Module, prefix: str, unused: Container[str]) -> Iterator[str]:
    """Paths of the outermost modules with parameters of which none is used."""
    for name, child in module.named_children():
        path = prefix + name
        names = [inner for inner, _ in child.named_parameters(prefix=path)]
        if names and all(inner in unused for inner in names):
            yield path
        else:
            yield from _idle_modules(child, f"{path}.", unused)
