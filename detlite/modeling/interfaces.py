"""The contracts of the model parts. Read this page before you write one.

Letters in shapes: N images, H and W pixels or cells, R anchors of all levels, A anchors per cell,
K classes, G ground truths, D detections. Boxes are XYXY in pixels of the padded input image.

A part is a class that derives from one of these, takes its config keys as keyword arguments (names,
types and defaults of the signature are what a YAML may say), and is registered under its own name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..structures import BatchShare, ImageList, ShapeSpec


class MetaArch(nn.Module, ABC):
    """A whole model: batches in, losses or predictions out.

    ``class_names`` is set by whoever builds the model, and travels in checkpoints.

    A step may compute its batch in parts, on several processes (``torchrun``) or one after the
    other (``train.accumulate``), and its gradient must not depend on that. So in every step, on
    every process, ``count_targets`` is called for each part, then once ``loss_weights`` with the
    counts of the whole batch, then ``forward`` for each part with its ``BatchShare``. Gradients
    are summed over the parts. A model that is only trained whole needs none of this.
    """

    class_names: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """Run a batch, or a part of one.

        Args:
            batch: One dict an image: "image" (3, h, w) RGB, uint8 or float32 from 0 to 255; in
                training also "instances" with gt_boxes (G, 4) and gt_classes (G,); "height" and
                "width" where the output shall be in the pixels of another size than the image's.
            share: In training, the place of these images in the whole batch; None: they are it.
                Images are padded to its canvas, as part of a larger batch; the losses are sums
                over images, each times its weight.

        Returns:
            In training a dict of scalars, those named ``loss*`` are summed; in evaluation one dict
            an image, a detector's with "instances" (pred_boxes, scores, pred_classes). With a
            share the scalars, all of them, are what these images add to the whole batch's.
        """

    def count_targets(self, batch: Sequence[Mapping[str, Any]], canvas: tuple[int, int]) -> Tensor:
        """What ``loss_weights`` must know of each image; 1 unless a subclass says otherwise.

        Args:
            batch: Images of a part of the batch.
            canvas: (height, width) that the whole batch is padded to, see ``BatchShare``.

        Returns:
            (n,) numbers, such as foreground anchors; an image's must not depend on the others.
        """
        return torch.ones(len(batch))

    def loss_weights(self, counts: Tensor) -> Tensor:
        """What the loss sums of each image are multiplied by; a mean over images by default.

        Called once a step in training, on every process with the same counts: the place to move
        what a normalizer remembers.

        Args:
            counts: (N,) what ``count_targets`` said of every image of the whole batch.

        Returns:
            (N,) weights, on the same device.
        """
        return torch.full((len(counts),), 1 / len(counts), device=counts.device)


class Backbone(nn.Module, ABC):
    """Makes feature maps of images."""

    batch_statistics: str = "trained"
    """Which batch normalizations use the statistics of the batch in training: those of "trained"
    parameters, "all" of them or "none"."""

    @abstractmethod
    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each map that ``forward`` returns, from fine to coarse."""

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), normalized and padded, to maps (N, C, H / stride, W / stride).

        Sizes are rounded up: ``ceil(H / stride)``, also where the padding is no multiple.
        """

    def layers(self) -> list[str]:
        """The layers that ``solver.layer_decay`` counts: names of submodules, from input to output.

        By default the direct submodules in their order. Those without a parameter do not count; a
        parameter in none of them belongs to the first.
        """
        return [name for name, _ in self.named_children()]


class Neck(nn.Module, ABC):
    """Mixes the backbone's maps into the levels that the head sees.

    Given: ``input_shape``, the backbone's ``output_shape()``.
    """

    @abstractmethod
    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level, from fine to coarse: p3, p4, ..."""

    @abstractmethod
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The backbone's maps to levels of equal channels, of the sizes of ``grid_sizes``."""

    def grid_sizes(self, image_size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """(height, width) of each level for padded images of this size: ceil(side / stride) cells.

        Where a batch is computed in parts, it is counted with them before the network has run.
        """
        height, width = image_size
        return {
            name: (-(-height // spec.stride), -(-width // spec.stride))
            for name, spec in self.output_shape().items()
        }


class ExtraLevels(nn.Module, ABC):
    """Continues a pyramid with coarser levels.

    Given: ``input_shape`` of all maps that ``forward`` gets, ``out_channels`` of the pyramid.
    """

    num_levels: int

    @abstractmethod
    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The backbone's and the pyramid's maps to ``num_levels`` maps.

        Each has half the size of the one before, rounded up.
        """


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


class Head(nn.Module, ABC):
    """Predicts class and place for each anchor.

    Given: ``input_shape`` of the levels, ``num_anchors`` per cell, ``num_classes``.
    """

    class_layers: ClassVar[tuple[str, ...]] = ()
    """Layers whose output channels are anchor * K + class. Weights for other classes keep the rows
    of classes that both have."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels (N, C, H, W) to logits (N, R, K) and deltas (N, R, 4), in the anchors' order."""


class Matcher(ABC):
    """Decides which anchors learn which object."""

    @abstractmethod
    def __call__(self, gt_boxes: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Match a batch.

        Args:
            gt_boxes: (G, 4) of each image; G may be 0.
            anchors: (R, 4), the same for all images.

        Returns:
            Index of the image's ground truth (N, R) int64, 0 where it has none, and label (N, R)
            int8: 1 foreground, 0 background, -1 ignored.
        """


class BoxCoder(ABC):
    """Expresses boxes relative to anchors."""

    @abstractmethod
    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (..., 4) that lead from anchors (..., 4) to boxes (..., 4)."""

    @abstractmethod
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) that deltas (..., 4) lead to; not clipped to the image."""


class Loss(nn.Module, ABC):
    """What all losses share; derive from ClassificationLoss or BoxLoss."""


class ClassificationLoss(Loss):
    """Compares class logits with class indices."""

    @abstractmethod
    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Sum the loss of logits (R, K). The caller normalizes.

        Args:
            logits: (R, K).
            classes: (R,) int64: 0 to K - 1 the class, K background, -1 ignored.
        """


class BoxLoss(Loss):
    """Compares places, either as deltas or as boxes."""

    compares: ClassVar[Literal["deltas", "boxes"]]
    """Whether ``forward`` wants deltas as the head predicts them or decoded boxes."""

    @abstractmethod
    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss (P,) of each predicted (P, 4) against target (P, 4).

        Entries of background anchors come along and are dropped afterwards: the result must be
        finite for every finite input.
        """


class LossNormalizer(nn.Module, ABC):
    """Decides what the sums of losses are divided by."""

    @abstractmethod
    def forward(self, num_positives: Tensor) -> Tensor:
        """Foreground anchors of each image (N,) to the weight (N,) of each image's sum."""


class Preprocessor(nn.Module, ABC):
    """Turns images into the network's input."""

    size_divisor: int = 1
    """Height and width of the batch are padded to a multiple of it."""

    @abstractmethod
    def forward(self, images: Sequence[Tensor], canvas: tuple[int, int] | None = None) -> ImageList:
        """Uint8 RGB images (3, h, w), on any device, to one padded batch on the model's.

        Args:
            images: The images of a batch, or of a part of one.
            canvas: (height, width) to pad to, then rounded up; None: the greatest of the images.
        """

    def padded_size(self, canvas: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of what ``forward`` makes for this canvas: rounded up to the divisor."""
        height, width = (-(-side // self.size_divisor) * self.size_divisor for side in canvas)
        return height, width


class Postprocessor(nn.Module, ABC):
    """Turns dense predictions into detections."""

    @abstractmethod
    def forward(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        box_coder: BoxCoder,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections in tensors whose shape does not depend on the data.

        Args:
            logits: (N, R, K).
            deltas: (N, R, 4).
            anchors: (R_l, 4) of each level l.
            image_sizes: (N, 2), height and width without padding.
            box_coder: The coder of the deltas.

        Returns:
            Boxes (N, D, 4), scores (N, D), classes (N, D) int64 by falling score, and the number
            of detections (N,); entries beyond it mean nothing.
        """
