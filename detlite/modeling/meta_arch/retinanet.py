"""RetinaNet (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ...registry import Block
from ...structures import BatchShare, ImageList, Instances
from ..box_coder import DeltaBoxCoder
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
from ..loss_normalizer import MovingAverageNormalizer
from ..losses import SigmoidFocalLoss, SmoothL1Loss
from ..matcher import MaxIoUMatcher, match_within_images, values_of_matched
from ..postprocessing import NMSPostprocessor
from ..preprocessing import ImageNormalizer, pad_to_canvas
from ..registries import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    BOX_CODER_REGISTRY,
    HEAD_REGISTRY,
    LOSS_NORMALIZER_REGISTRY,
    LOSS_REGISTRY,
    MATCHER_REGISTRY,
    META_ARCH_REGISTRY,
    NECK_REGISTRY,
    POSTPROCESSOR_REGISTRY,
    PREPROCESSOR_REGISTRY,
)


@META_ARCH_REGISTRY.register
class RetinaNet(MetaArch):
    """A dense one-stage detector.

    Args:
        backbone: Makes feature maps.
        neck: Makes the levels of them.
        anchor_generator: Lays anchors on the levels.
        head: Predicts class and place for each anchor.
        num_classes: K.
        matcher: Decides which anchors learn which object; default as in the paper.
        box_coder: Expresses boxes relative to anchors.
        cls_loss: Compares logits with classes.
        box_loss: Compares deltas or boxes.
        loss_normalizer: What the losses are divided by; a moving average of positives by default.
        preprocessor: Turns images into the network's input.
        postprocessor: Turns predictions into detections.
        ignore_padding: Let anchors learn nothing, and match nothing, whose centre lies beyond
            their image's own size, rounded up to what the preprocessor pads to (mmdetection).
    """

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
        loss_normalizer: LossNormalizer | None = None,
        preprocessor: Preprocessor | None = None,
        postprocessor: Postprocessor | None = None,
        ignore_padding: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.anchor_generator = anchor_generator
        self.head = head
        self.num_classes = num_classes
        self.matcher = matcher or MaxIoUMatcher()
        self.box_coder = box_coder or DeltaBoxCoder()
        self.cls_loss = cls_loss or SigmoidFocalLoss()
        self.box_loss = box_loss or SmoothL1Loss()
        self.loss_normalizer = loss_normalizer or MovingAverageNormalizer()
        self.preprocessor = preprocessor or ImageNormalizer()
        self.postprocessor = postprocessor or NMSPostprocessor()
        self.ignore_padding = ignore_padding

    @classmethod
    def from_config(cls, block: Block, num_classes: int) -> "RetinaNet":
        """Build each part once, each from what the parts before it say."""
        backbone = BACKBONE_REGISTRY.build(block.backbone)
        neck = NECK_REGISTRY.build(block.neck, input_shape=backbone.output_shape())
        levels = neck.output_shape()
        anchor_generator = ANCHOR_GENERATOR_REGISTRY.build(
            block.anchor_generator, strides=[spec.stride for spec in levels.values()]
        )
        head = HEAD_REGISTRY.build(
            block.head,
            input_shape=levels,
            num_anchors=anchor_generator.num_anchors,
            num_classes=num_classes,
        )
        optional = {
            "matcher": MATCHER_REGISTRY,
            "box_coder": BOX_CODER_REGISTRY,
            "cls_loss": LOSS_REGISTRY,
            "box_loss": LOSS_REGISTRY,
            "loss_normalizer": LOSS_NORMALIZER_REGISTRY,
            "preprocessor": PREPROCESSOR_REGISTRY,
            "postprocessor": POSTPROCESSOR_REGISTRY,
        }
        parts = {
            key: registry.build(block[key])
            for key, registry in optional.items()
            if block.get(key) is not None
        }
        if block.get("ignore_padding") is not None:
            parts["ignore_padding"] = block.ignore_padding
        return cls(
            backbone=backbone,
            neck=neck,
            anchor_generator=anchor_generator,
            head=head,
            num_classes=num_classes,
            **parts,
        )

    def forward(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """Losses in training, detections in evaluation; see ``MetaArch.forward``.

        Training gives ``loss_cls``, ``loss_box`` and ``num_positives``, the foreground anchors of
        the batch. Evaluation gives each image's "instances": pred_boxes (D, 4), scores (D,) and
        pred_classes (D,) by falling score, in pixels of the image's "height" and "width".
        """
        tensors = [sample["image"] for sample in batch]
        if share is None:
            images = self.preprocessor(tensors)
        else:
            images = pad_to_canvas(self.preprocessor, tensors, share.canvas)
        size = (images.tensor.shape[-2], images.tensor.shape[-1])
        logits, deltas, levels = self.predict(images.tensor)
        if share is not None:
            self._check_levels(levels, size)
        anchors = self.anchor_generator(levels, size)
        if not self.training:
            return self._detections(logits, deltas, anchors, images, batch)
        instances = [sample["instances"] for sample in batch]
        weights = None if share is None else share.weights
        return self.losses(
            logits, deltas, torch.cat(anchors), instances, images.image_sizes, weights
        )

    @torch.no_grad()
    def count_targets(self, batch: Sequence[Mapping[str, Any]], canvas: tuple[int, int]) -> Tensor:
        """Foreground anchors (n,) of each image, which its objects decide alone."""
        size = self.preprocessor.padded_size(canvas)
        anchors = torch.cat(self.anchor_generator(list(self.neck.grid_sizes(size).values()), size))
        gt_boxes = [sample["instances"].gt_boxes.to(anchors, non_blocking=True) for sample in batch]
        image_sizes = [(s["image"].shape[-2], s["image"].shape[-1]) for s in batch]
        _, labels = self._match(gt_boxes, anchors, image_sizes)
        return (labels == 1).sum(dim=1)

    @torch.no_grad()
    def loss_weights(self, counts: Tensor) -> Tensor:
        """What the normalizer says of the whole batch's foreground anchors (N,)."""
        weights: Tensor = self.loss_normalizer(counts)
        return weights

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """The dense part: images (N, 3, H, W) to logits (N, R, K), deltas (N, R, 4), grid sizes."""
        features = list(self.neck(self.backbone(images)).values())
        logits, deltas = self.head(features)
        return logits, deltas, [tuple(level.shape[-2:]) for level in features]

    def losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        instances: Sequence[Instances],
        image_sizes: Sequence[tuple[int, int]],
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            logits: (N, R, K).
            deltas: (N, R, 4).
            anchors: (R, 4).
            instances: gt_boxes (G, 4) and gt_classes (G,) of each image.
            image_sizes: (height, width) of each image without padding.
            weights: (N,) of each image's sums; None: the normalizer's, for these images alone.
        """
        # What the loader has put into pinned memory is copied without waiting for the device.
        gt_boxes = [truth.gt_boxes.to(anchors, non_blocking=True) for truth in instances]
        gt_classes = [truth.gt_classes.to(anchors.device, non_blocking=True) for truth in instances]
        matched, labels = self._match(gt_boxes, anchors, image_sizes)
        foreground = labels == 1
        classes = torch.where(foreground, values_of_matched(gt_classes, matched), self.num_classes)
        classes = classes.masked_fill(labels == -1, -1)
        # Background anchors aim at themselves, so that their loss is finite.
        targets = torch.where(foreground[..., None], values_of_matched(gt_boxes, matched), anchors)
        # float32 at least, also under autocast.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        cls_sums = [
            self.cls_loss(image_logits, image_classes)
            for image_logits, image_classes in zip(logits.to(dtype), classes, strict=True)
        ]
        box_losses = self._box_losses(deltas.to(dtype), targets, anchors)
        # A mask and no indexing: the number of positives stays on the device.
        box_sums = torch.where(foreground, box_losses, 0).sum(dim=1)
        num_positives = foreground.sum(dim=1)
        if weights is None:
            weights = self.loss_normalizer(num_positives)
        return {
            "loss_cls": (torch.stack(cls_sums) * weights).sum(),
            "loss_box": (box_sums * weights).sum(),
            "num_positives": num_positives.sum(),
        }

    def _match(
        self,
        gt_boxes: Sequence[Tensor],
        anchors: Tensor,
        image_sizes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """What the matcher says, (N, R) each, of the anchors that an image has."""
        if not self.ignore_padding:
            return self.matcher(gt_boxes, anchors)
        return match_within_images(
            self.matcher, gt_boxes, anchors, image_sizes, self.preprocessor.size_divisor
        )

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

    def _box_losses(self, deltas: Tensor, targets: Tensor, anchors: Tensor) -> Tensor:
        """Losses (N, R) of deltas (N, R, 4) against boxes (N, R, 4)."""
        if self.box_loss.compares == "boxes":
            predicted = self.box_coder.decode(deltas, anchors)
        else:
            predicted, targets = deltas, self.box_coder.encode(targets, anchors)
        losses = self.box_loss(predicted.flatten(0, 1), targets.flatten(0, 1))
        return losses.unflatten(0, deltas.shape[:2])

    def _detections(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        images: ImageList,
        batch: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Instances]]:
        sizes = torch.tensor(images.image_sizes, device=logits.device)
        boxes, scores, classes, counts = self.postprocessor(
            logits, deltas, anchors, sizes, self.box_coder
        )
        results = []
        for i, (sample, (height, width)) in enumerate(zip(batch, images.image_sizes, strict=True)):
            count = int(counts[i])
            out_height, out_width = sample.get("height", height), sample.get("width", width)
            scale = boxes.new_tensor([out_width / width, out_height / height] * 2)
            instances = Instances(
                (out_height, out_width),
                pred_boxes=boxes[i, :count] * scale,
                scores=scores[i, :count],
                pred_classes=classes[i, :count],
            )
            results.append({"instances": instances})
        return results
