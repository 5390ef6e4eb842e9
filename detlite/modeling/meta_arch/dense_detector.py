"""What dense one-stage detectors have in common: anchors, or points, on all cells of a pyramid."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ...errors import UserError
from ...registry import Block, Registry
from ...structures import BatchShare, ImageExtents, ImageList, Instances, image_extents
from ..interfaces import (
    AnchorGenerator,
    Backbone,
    BoxCoder,
    BoxLoss,
    ClassificationLoss,
    Head,
    LossNormalizer,
    Matcher,
    MetaArch,
    Neck,
    Postprocessor,
    Preprocessor,
)
from ..matcher import match_within_images
from ..postprocessing import detected_instances, joint_logits
from ..preprocessing import ImageNormalizer, pad_to_canvas, run_by_size
from ..registries import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    BOX_CODER_REGISTRY,
    HEAD_REGISTRY,
    LOSS_NORMALIZER_REGISTRY,
    LOSS_REGISTRY,
    MATCHER_REGISTRY,
    NECK_REGISTRY,
    POSTPROCESSOR_REGISTRY,
    PREPROCESSOR_REGISTRY,
)
from .dense_losses import DensePredictions, loss_sums
from .dense_targets import DenseTargets

T = TypeVar("T", bound="DenseDetector")

_OPTIONAL: dict[str, Registry] = {
    "matcher": MATCHER_REGISTRY,
    "cls_loss": LOSS_REGISTRY,
    "box_loss": LOSS_REGISTRY,
    "distribution_loss": LOSS_REGISTRY,
    "loss_normalizer": LOSS_NORMALIZER_REGISTRY,
    "preprocessor": PREPROCESSOR_REGISTRY,
    "postprocessor": POSTPROCESSOR_REGISTRY,
}


class DenseDetector(MetaArch):
    """A dense one-stage detector; a subclass names the parts that are its default.

    Args:
        backbone: Makes feature maps.
        neck: Makes the levels of them.
        anchor_generator: Lays anchors on the levels.
        head: Predicts class and place for each anchor.
        num_classes: K.
        matcher: Decides which anchors learn which object.
        box_coder: Expresses boxes relative to anchors.
        cls_loss: Compares logits with classes, a ``QualityLoss`` also with the boxes' IoU.
        box_loss: Compares deltas or boxes.
        distribution_loss: A second one, of deltas that are distributions; none by default.
        loss_normalizer: What the losses are divided by.
        preprocessor: Turns images into the network's input.
        postprocessor: Turns predictions into detections.
        ignore_padding: Let anchors learn nothing, and match nothing, whose centre lies beyond
            their image's own size, rounded up to what the preprocessor pads to (mmdetection).
        independent_images: Keep the padding of a batch from an image's results. Evaluation runs
            images of one padded size together; in training ``GroupNorm`` takes its statistics
            over the image, likewise rounded up. False is the function of other frameworks, where
            an image's detections change with the images beside it.
    """

    default_parts: ClassVar[Mapping[str, Callable[[], Any]]] = {}
    """What makes matcher, box_coder, cls_loss, box_loss, loss_normalizer and postprocessor."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: Neck,
        anchor_generator: AnchorGenerator,
        head: Head,
        num_classes: int,
        matcher: Matcher | None = None,
        box_coder: BoxCoder | None = None,
        cls_loss: ClassificationLoss | None = None,
        box_loss: BoxLoss | None = None,
        distribution_loss: BoxLoss | None = None,
        loss_normalizer: LossNormalizer | None = None,
        preprocessor: Preprocessor | None = None,
        postprocessor: Postprocessor | None = None,
        ignore_padding: bool = False,
        independent_images: bool = True,
    ) -> None:
        super().__init__()
        make = self.default_parts
        self.backbone = backbone
        self.neck = neck
        self.anchor_generator = anchor_generator
        self.head = head
        self.num_classes = num_classes
        self.matcher: Matcher = matcher or make["matcher"]()
        self.box_coder: BoxCoder = box_coder or make["box_coder"]()
        self.cls_loss: ClassificationLoss = cls_loss or make["cls_loss"]()
        self.box_loss: BoxLoss = box_loss or make["box_loss"]()
        self.distribution_loss = distribution_loss
        self.loss_normalizer: LossNormalizer = loss_normalizer or make["loss_normalizer"]()
        self.preprocessor = preprocessor or ImageNormalizer()
        self.postprocessor: Postprocessor = postprocessor or make["postprocessor"]()
        self.ignore_padding = ignore_padding
        self.independent_images = independent_images
        self._check_parts()

    @classmethod
    def from_config(cls: type[T], block: Block, num_classes: int) -> T:
        """Build each part once, each from what the parts before it say."""
        backbone = BACKBONE_REGISTRY.build(block.backbone)
        neck = NECK_REGISTRY.build(block.neck, input_shape=backbone.output_shape())
        levels = neck.output_shape()
        anchor_generator = ANCHOR_GENERATOR_REGISTRY.build(
            block.anchor_generator, strides=[spec.stride for spec in levels.values()]
        )
        coder_block = block.get("box_coder")
        box_coder = (
            cls.default_parts["box_coder"]()
            if coder_block is None
            else BOX_CODER_REGISTRY.build(coder_block)
        )
        head = HEAD_REGISTRY.build(
            block.head,
            input_shape=levels,
            num_anchors=anchor_generator.num_anchors,
            num_classes=num_classes,
            code_size=box_coder.code_size,
        )
        parts = {
            key: registry.build(block[key], num_classes=num_classes)
            for key, registry in _OPTIONAL.items()
            if block.get(key) is not None
        }
        for key in ("ignore_padding", "independent_images"):
            if block.get(key) is not None:
                parts[key] = block[key]
        return cls(
            backbone=backbone,
            neck=neck,
            anchor_generator=anchor_generator,
            head=head,
            num_classes=num_classes,
            box_coder=box_coder,
            **parts,
        )

    def forward(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """Losses in training, detections in evaluation; see ``MetaArch.forward``.

        Training gives ``loss_cls``, ``loss_box`` and ``num_positives``, the foreground anchors of
        the batch, and where the parts are there ``loss_centerness`` and ``loss_distribution``.
        Evaluation gives each image's "instances": pred_boxes (D, 4), scores (D,) and
        pred_classes (D,) by falling score, in pixels of the image's "height" and "width".
        """
        if self.independent_images and not self.training:
            return run_by_size(self.preprocessor, batch, self._run)
        return self._run(batch, share)

    def _run(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """Run images that are padded to one size."""
        tensors = [sample["image"] for sample in batch]
        if share is None:
            images = self.preprocessor(tensors)
        else:
            images = pad_to_canvas(self.preprocessor, tensors, share.canvas)
        size = (images.tensor.shape[-2], images.tensor.shape[-1])
        predictions = self.predict(images.tensor, self._sizes_within(images))
        if share is not None:
            self._check_levels(predictions.grid_sizes, size)
        anchors = self.anchor_generator(predictions.grid_sizes, size)
        if self.training:
            instances = [sample["instances"] for sample in batch]
            weights = None if share is None else share.weights
            return self.losses(predictions, anchors, instances, images.image_sizes, weights)
        logits = predictions.logits
        if predictions.centerness is not None:
            logits = joint_logits(logits, predictions.centerness)
        sizes = torch.tensor(images.image_sizes, device=logits.device)
        detections = self.postprocessor(logits, predictions.deltas, anchors, sizes, self.box_coder)
        return detected_instances(detections, images.image_sizes, batch)

    @torch.no_grad()
    def count_targets(self, batch: Sequence[Mapping[str, Any]], canvas: tuple[int, int]) -> Tensor:
        """Foreground anchors (n,) of each image, which its objects decide alone."""
        size = self.preprocessor.padded_size(canvas)
        anchors = self.anchor_generator(list(self.neck.grid_sizes(size).values()), size)
        gt_boxes = [
            sample["instances"].gt_boxes.to(anchors[0], non_blocking=True) for sample in batch
        ]
        image_sizes = [(s["image"].shape[-2], s["image"].shape[-1]) for s in batch]
        _, labels = self._match(gt_boxes, anchors, image_sizes)
        return (labels == 1).sum(dim=1)

    @torch.no_grad()
    def loss_weights(self, counts: Tensor) -> Tensor:
        """What the normalizer says of the whole batch's foreground anchors (N,)."""
        weights: Tensor = self.loss_normalizer(counts)
        return weights

    def predict(self, images: Tensor, sizes: Tensor | None = None) -> DensePredictions:
        """The dense part: images to what the head says.

        Args:
            images: (N, 3, H, W), normalized and padded.
            sizes: (N, 2) height and width of each image, which ``GroupNorm`` keeps to; None: there
                is no padding, or it counts as image.
        """
        canvas = (images.shape[-2], images.shape[-1])
        with image_extents(None if sizes is None else ImageExtents(sizes, canvas)):
            features = list(self.neck(self.backbone(images)).values())
            logits, deltas, *further = self.head(features)
        if deltas.shape[-1] != self.box_coder.code_size:
            raise UserError(
                f"head {type(self.head).__name__} predicts {deltas.shape[-1]} numbers for a box, "
                f"and box coder {type(self.box_coder).__name__} needs {self.box_coder.code_size}: "
                "take a head whose constructor has a `code_size`, or another box_coder"
            )
        grid_sizes = [(level.shape[-2], level.shape[-1]) for level in features]
        return DensePredictions(logits, deltas, grid_sizes, *further)

    def losses(
        self,
        predictions: DensePredictions,
        anchors: Sequence[Tensor],
        instances: Sequence[Instances],
        image_sizes: Sequence[tuple[int, int]],
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            predictions: What ``predict`` gives.
            anchors: (R_l, 4) of each level l.
            instances: gt_boxes (G, 4) and gt_classes (G,) of each image.
            image_sizes: (height, width) of each image without padding.
            weights: (N,) of each image's sums; None: the normalizer's, for these images alone.
        """
        joined = torch.cat(list(anchors))
        # What the loader has put into pinned memory is copied without waiting for the device.
        gt_boxes = [truth.gt_boxes.to(joined, non_blocking=True) for truth in instances]
        matches = self._match(gt_boxes, anchors, image_sizes)
        targets = DenseTargets.of_matches(matches, gt_boxes, instances, joined, self.num_classes)
        num_positives = targets.foreground.sum(dim=1)
        if weights is None:
            weights = self.loss_normalizer(num_positives)
        box_losses = {"box": self.box_loss}
        if self.distribution_loss is not None:
            box_losses["distribution"] = self.distribution_loss
        sums = loss_sums(
            predictions,
            targets,
            joined,
            box_coder=self.box_coder,
            cls_loss=self.cls_loss,
            box_losses=box_losses,
        )
        losses = {f"loss_{name}": (value * weights).sum() for name, value in sums.items()}
        return {**losses, "num_positives": num_positives.sum()}

    def _sizes_within(self, images: ImageList) -> Tensor | None:
        """What ``predict`` must know of a batch; None where no image has padding of the batch's."""
        sizes = [self.preprocessor.padded_size(size) for size in images.image_sizes]
        canvas = (images.tensor.shape[-2], images.tensor.shape[-1])
        if not self.independent_images or all(size == canvas for size in sizes):
            return None
        device = images.tensor.device
        # From pinned memory, so that nothing waits for the device.
        tensor = torch.tensor(sizes, pin_memory=device.type == "cuda")
        return tensor.to(device, non_blocking=True)

    def _match(
        self,
        gt_boxes: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """What the matcher says, (N, R) each, of the anchors that an image has."""
        if self.ignore_padding:
            divisor = self.preprocessor.size_divisor
            return match_within_images(self.matcher, gt_boxes, anchors, image_sizes, divisor)
        return self.matcher(gt_boxes, torch.cat(list(anchors)), [len(level) for level in anchors])

    def _check_levels(self, levels: Sequence[tuple[int, int]], size: tuple[int, int]) -> None:
        for (name, expected), found in zip(self.neck.grid_sizes(size).items(), levels, strict=True):
            if tuple(found) != expected:
                raise UserError(
                    f"level {name} has (height, width) {tuple(found)} for images of {size}, and "
                    f"{type(self.neck).__name__}.grid_sizes says {expected}, with which the batch "
                    "was counted: ceil(size / stride) cells, as in the contract "
                    "(detlite.modeling.interfaces.Neck); mend the backbone or the neck, or "
                    "give the preprocessor a size_divisor that all strides divide"
                )

    def _check_parts(self) -> None:
        loss = self.distribution_loss
        if loss is not None and loss.compares != "deltas":
            raise UserError(
                f"distribution_loss must compare deltas, got {type(loss).__name__}, which compares "
                "boxes; name that in box_loss"
            )
