"""What a feature map looks like, known before any image is seen."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShapeSpec:
    """A feature map's channels, and its stride in pixels of the network's input."""

    channels: int
    stride: int
