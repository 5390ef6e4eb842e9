"""From dense predictions to detections: threshold, top k, decode, clip, NMS."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import clip_boxes, nms_padded
from ..ranges import Fraction, PositiveInt
from ..structures import Instances
from .interfaces import BoxCoder, Postprocessor
from .registries import POSTPROCESSOR_REGISTRY


@POSTPROCESSOR_REGISTRY.register
class NMSPostprocessor(Postprocessor):
    """RetinaNet's inference (section 4.1): the best of each level, then NMS within each class.

    Args:
        score_thresh: Lower bound of scores, exclusive.
        topk_per_level: Candidates that a level may send to NMS.
        nms_thresh: IoU above which NMS drops a box.
        max_detections: Detections of an image at most.
        clip_before_nms: Clip boxes to the image before NMS (torchvision, mmdetection), not after
            it (detectron2).
        drop_empty: Drop boxes that clipping leaves without width or height: where clipping is
            before NMS, before it (mmdetection); else after NMS and ``max_detections``, so that an
            image may have fewer detections than it could (detectron2).
    """

    def __init__(
        self,
        *,
        score_thresh: Fraction = 0.05,
        topk_per_level: PositiveInt = 1000,
        nms_thresh: Fraction = 0.5,
        max_detections: PositiveInt = 100,
        clip_before_nms: bool = True,
        drop_empty: bool = False,
    ) -> None:
        super().__init__()
        self.score_thresh = score_thresh
        self.topk_per_level = topk_per_level
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.clip_before_nms = clip_before_nms
        self.drop_empty = drop_empty

    def forward(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        box_coder: BoxCoder,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``Postprocessor.forward``."""
        level_sizes = [len(level) for level in anchors]
        dtype = torch.promote_types(logits.dtype, torch.float32)
        levels = zip(
            logits.to(dtype).split(level_sizes, dim=1),
            deltas.to(dtype).split(level_sizes, dim=1),
            anchors,
            strict=True,
        )
        candidates = [self._level_candidates(*level, box_coder) for level in levels]
        boxes, scores, classes = (
            torch.cat(parts, dim=1) for parts in zip(*candidates, strict=True)
        )
        if self.clip_before_nms:
            boxes = clip_boxes(boxes, image_sizes)
            if self.drop_empty:
                scores = scores.masked_fill(~_has_area(boxes), -math.inf)
        indices, counts = nms_padded(boxes, scores, classes, self.nms_thresh, self.max_detections)
        indices = indices.clamp(min=0)
        boxes, scores, classes = _pick(boxes, scores, classes, indices)
        if not self.clip_before_nms:
            boxes = clip_boxes(boxes, image_sizes)
            if self.drop_empty:
                return _keep_areas(boxes, scores, classes, counts)
        return boxes, scores, classes, counts

    def _level_candidates(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, box_coder: BoxCoder
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes, scores and classes of a level; scores up to the threshold become -inf."""
        num_classes = logits.shape[-1]
        scores = logits.sigmoid().flatten(start_dim=1)
        scores, picked = scores.topk(min(self.topk_per_level, scores.shape[1]), dim=1)
        scores = scores.masked_fill(~(scores > self.score_thresh), -math.inf)
        rows = picked // num_classes
        deltas = deltas.gather(1, rows[..., None].expand(-1, -1, deltas.shape[-1]))
        return box_coder.decode(deltas, anchors[rows]), scores, picked % num_classes


def joint_logits(logits: Tensor, centerness: Tensor) -> Tensor:
    """Logits of the geometric mean of two scores, by which FCOS ranks its boxes.

    Args:
        logits: (N, R, K) of classes.
        centerness: (N, R) likewise logits.

    Returns:
        (N, R, K) float32, or float64 where logits are.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_scores = F.logsigmoid(logits.to(dtype)) + F.logsigmoid(centerness.to(dtype))[..., None]
    log_score = log_scores / 2
    return log_score - torch.log(-torch.expm1(log_score))


def detected_instances(
    detections: tuple[Tensor, Tensor, Tensor, Tensor],
    image_sizes: Sequence[tuple[int, int]],
    batch: Sequence[Mapping[str, Any]],
) -> list[dict[str, Instances]]:
    """Detections as a meta-arch returns them.

    Args:
        detections: What ``Postprocessor.forward`` gives.
        image_sizes: (height, width) of each image without padding.
        batch: What the meta-arch was given; "height" and "width" of a sample are the size in whose
            pixels its boxes are returned, that of the image if there are none.
    """
    boxes, scores, classes, counts = detections
    results = []
    for i, (sample, (height, width)) in enumerate(zip(batch, image_sizes, strict=True)):
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


def _pick(
    boxes: Tensor, scores: Tensor, classes: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, C, 4), scores (N, C) and classes (N, C) at indices (N, D)."""
    places = indices[..., None].expand(-1, -1, 4)
    return boxes.gather(1, places), scores.gather(1, indices), classes.gather(1, indices)


def _has_area(boxes: Tensor) -> Tensor:
    """Whether boxes (..., 4) have width and height, (...) bool."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def _keep_areas(
    boxes: Tensor, scores: Tensor, classes: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Move the detections without area behind the others, which keep their order and count."""
    is_detection = torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
    keep = is_detection & _has_area(boxes)
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
    return *_pick(boxes, scores, classes, order), keep.sum(dim=1)
