"""The contracts of what decides where objects are learnt: anchors, matchers, box coders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class AnchorGenerator(nn.Module, ABC):
    """Lays anchors on the cells of each level.

    Given: ``strides``, one a level.
    """

    num_anchors: int
    """Anchors per cell, A."""

    @abstractmethod
    def forward(
        self, grid_sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Anchors (H * W * A, 4) of each level: cells row by row, a cell's anchors together.

        Args:
            grid_sizes: (height, width) of each level in cells.
            image_size: (height, width) of the padded batch.
        """


class Matcher(ABC):
    """Decides which anchors learn which object."""

    @abstractmethod
    def __call__(
        self, gt_boxes: Sequence[Tensor], anchors: Tensor, level_sizes: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """Match a batch.

        Args:
            gt_boxes: (G, 4) of each image; G may be 0.
            anchors: (R, 4) of all levels, the same for all images.
            level_sizes: Anchors of each level, R together; (): all are of one level.

        Returns:
            Index of the image's ground truth (N, R) int64, 0 where it has none, and label (N, R)
            int8: 1 foreground, 0 background, -1 ignored.
        """


class BoxCoder(ABC):
    """Expresses boxes relative to anchors."""

    code_size: int = 4
    """Numbers that a head predicts for a box, B."""

    @abstractmethod
    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Numbers (..., 4) that lead from anchors (..., 4) to boxes (..., 4)."""

    @abstractmethod
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) that predicted deltas (..., B) lead to; not clipped to the image."""
