"""How near detectron2 came to deciding otherwise: the golden numbers must not hang on rounding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

# What each margin has to be at least. Scores are compared as logits, which is where rounding errors
# come in, and must differ as scores too. Overlaps: NMS moves the boxes of each class aside by
# thousands of pixels, which rounds their corners.
REQUIRED = {
    "order": 1e-4,
    "order of scores": 1e-6,
    "threshold": 1e-4,
    "overlap": 2e-3,
    "pixels left": 1e-2,
    "match": 1e-5,
    "best anchor": 1e-5,
}


@dataclass
class Candidates:
    """Boxes of one level of one image that may pass the threshold.

    Attributes:
        boxes: (C, 4) in pixels of the network's input, not clipped.
        logits: (C,)
        channels: (C,) of cls_score; the class is the rest after division by the number of classes.
    """

    boxes: Tensor
    logits: Tensor
    channels: Tensor


def find_candidates(
    model: RetinaNet, anchors: Boxes, logits: Tensor, deltas: Tensor, lowest: float
) -> Candidates:
    """Those anchors and classes of a level, logits (R, K), deltas (R, 4), that are above lowest."""
    rows, classes = (logits > lowest).nonzero(as_tuple=True)
    boxes = model.box2box_transform.apply_deltas(deltas[rows], anchors.tensor[rows])
    channels = rows % model.anchor_generator.num_anchors[0] * model.num_classes + classes
    return Candidates(boxes, logits[rows, classes], channels)


def detection_margins(
    model: RetinaNet, levels: Sequence[Candidates], image_size: tuple[int, int]
) -> dict[str, float]:
    """The margins of the detections of one image of this height and width."""
    limit = model.max_detections_per_image
    threshold = math.log(model.test_score_thresh / (1 - model.test_score_thresh))
    passed = [_passed(level, threshold, model.test_topk_candidates) for level in levels]
    boxes, logits = torch.cat([x.boxes for x in passed]), torch.cat([x.logits for x in passed])
    classes = torch.cat([x.channels for x in passed]) % model.num_classes
    kept = batched_nms(boxes, logits.sigmoid(), classes, model.test_nms_thresh)
    margins = dict.fromkeys(REQUIRED, math.inf)
    ordered = logits[kept[: limit + 1]]
    lowest = ordered[:limit][-1]
    margins["order"] = (ordered[:-1] - ordered[1:]).min().item()
    margins["order of scores"] = -ordered.sigmoid().diff().max().item()
    # What comes after the last detection decides nothing.
    considered = logits >= lowest
    greatest = _greatest_overlaps(boxes, logits, classes, considered, kept[:limit])
    margins["overlap"] = (greatest / model.test_nms_thresh - 1).abs().min().item()
    margins["pixels left"] = _pixels_left(boxes[kept[:limit]], image_size).abs().min().item()
    if len(kept) < limit:
        all_logits = torch.cat([level.logits for level in levels])
        margins["threshold"] = (all_logits - threshold).abs().min().item()
    for level, rest in zip(levels, passed, strict=True):
        # What the limit of candidates of a level has cut off must not matter.
        if (level.logits > threshold).sum() > len(rest.logits):
            assert len(kept) >= limit
            assert rest.logits.min() < lowest
    return margins


def _passed(level: Candidates, threshold: float, top_k: int) -> Candidates:
    logits, best = level.logits.topk(min(top_k, len(level.logits)))
    best = best[logits > threshold]
    return Candidates(level.boxes[best], level.logits[best], level.channels[best])


def _greatest_overlaps(
    boxes: Tensor, logits: Tensor, classes: Tensor, considered: Tensor, kept: Tensor
) -> Tensor:
    """The greatest overlap of each considered box with a better one of its class that was kept."""
    overlaps = pairwise_iou(Boxes(boxes[considered]), Boxes(boxes[kept]))
    same_class = classes[considered][:, None] == classes[kept]
    better = logits[considered][:, None] < logits[kept]
    return torch.where(same_class & better, overlaps, 0).amax(dim=1)


def _pixels_left(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The shorter side of each box within the image; negative outside of it."""
    corner = torch.tensor([image_size[1], image_size[0]])
    return (boxes[:, 2:].minimum(corner) - boxes[:, :2].clamp(min=0)).amin(dim=1)


def matching_margins(anchors: Sequence[Boxes], gt_boxes: Boxes) -> dict[str, float]:
    """The margins of which anchors learn which object of an image."""
    overlap = pairwise_iou(gt_boxes, Boxes.cat(list(anchors)))
    best = overlap.amax(dim=0)
    limits = torch.tensor([[0.4], [0.5]])
    match = (best / limits - 1).abs().min().item()
    # Anchors that learn only if they are the best of an object, and are so nearly, but not exactly;
    # and objects that are nearly as good as the best of an anchor.
    of_object = overlap.amax(dim=1, keepdim=True)
    behind = (1 - overlap / of_object).where((overlap < of_object) & (best < 0.5), math.inf)
    learning = best >= 0.4
    two = overlap[:, learning].topk(min(2, len(overlap)), dim=0).values
    rival = (1 - two[-1] / two[0]).min().item() if len(two) > 1 else math.inf
    return {"match": match, "best anchor": min(behind.min().item(), rival)}
