"""The contracts of a model, of the networks in it, and of what lies before and behind them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...structures import BatchShare, ImageList, ShapeSpec
from .targets import BoxCoder


class MetaArch(nn.Module, ABC):
    """A whole model: batches in, losses or predictions out.

    ``class_names`` is set by whoever builds the model, and travels in checkpoints.

    A step may compute its batch in parts, on several processes (``torchrun``) or one after the
    other (``train.accumulate``), and its gradient must not depend on that. So in every step, on
    every process, ``count_targets`` is called for each part, then once ``loss_weights`` with the
    counts of the whole batch, then ``forward`` for each part with its ``BatchShare``. Gradients
    are summed over the parts. A model that is only trained whole needs none of this.
    """

    task: ClassVar[str] = "detection"
    """What it learns, which the data sets and the evaluators must be for."""

    class_names: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """Run a batch, or a part of one.

        Args:
            batch: One dict an image: "image" (3, h, w) RGB, uint8 or float32 from 0 to 255; in
                training also "instances" with gt_boxes (G, 4) and gt_classes (G,), or a
                classifier's "gt_class" () int64 or "gt_probs" (K,); "height" and "width" where the
                output shall be in the pixels of another size than the image's.
            share: In training, the place of these images in the whole batch; None: they are it.
                Images are padded to its canvas, as part of a larger batch; the losses are sums
                over images, each times its weight.

        Returns:
            In training a dict of scalars, those named ``loss*`` are summed; in evaluation one dict
            an image, a detector's with "instances" (pred_boxes, scores, pred_classes), a
            classifier's with "scores" (K,). With a share the scalars, all of them, are what these
            images add to the whole batch's.
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


class Head(nn.Module, ABC):
    """Predicts class and place for each anchor.

    Given: ``input_shape`` of the levels, ``num_anchors`` per cell, ``num_classes``, ``code_size``
    of the box coder (4 with most).
    """

    class_layers: ClassVar[tuple[str, ...]] = ()
    """Layers whose output channels are anchor * K + class. Weights for other classes keep the rows
    of classes that both have."""

    predicts_centerness: ClassVar[bool] = False
    """Whether ``forward`` also says how near an anchor is to its object's centre."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels (N, C, H, W) to logits (N, R, K) and deltas (N, R, B), in the anchors' order.

        With ``predicts_centerness`` logits (N, R) of the centerness come third.
        """


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
            deltas: (N, R, B).
            anchors: (R_l, 4) of each level l.
            image_sizes: (N, 2), height and width without padding.
            box_coder: The coder of the deltas.

        Returns:
            Boxes (N, D, 4), scores (N, D), classes (N, D) int64 by falling score, and the number
            of detections (N,); entries beyond it mean nothing.
        """
