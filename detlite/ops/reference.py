"""Every op in plain torch: written to be read, the oracle of the tests.

The arguments are taken as they come; the checks stand in the faces beside this file.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Boxes per round of NMS: a round holds one matrix of this many rows in memory.
NMS_BLOCK = 1024


def valid_boxes(boxes: Tensor) -> Tensor:
    """Which boxes (..., 4) are finite and have an area: (...) bool."""
    # A finite area has finite corners; it is 0 or infinite too where the type cannot hold it.
    area = box_area(boxes)
    return area.isfinite() & (area > 0) & (boxes[..., 2] > boxes[..., 0])


def box_area(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _overlap(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union (N, M) of every pair."""
    upper_left = torch.max(boxes1[:, None, :2], boxes2[None, :, :2])
    lower_right = torch.min(boxes1[:, None, 2:], boxes2[None, :, 2:])
    width, height = (lower_right - upper_left).clamp(min=0).unbind(dim=-1)
    intersection = width * height
    union = box_area(boxes1)[:, None] + box_area(boxes2)[None, :] - intersection
    return intersection, union


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair (N, 4) x (M, 4) -> (N, M); 0 where a box is bad."""
    intersection, union = _overlap(boxes1, boxes2)
    both = valid_boxes(boxes1)[:, None] & valid_boxes(boxes2)[None, :]
    return torch.where(both, intersection / union, 0)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """GIoU of every pair (Rezatofighi et al. 2019, eq. 3), in (-1, 1]; -1 where a box is bad."""
    intersection, union = _overlap(boxes1, boxes2)
    upper_left = torch.min(boxes1[:, None, :2], boxes2[None, :, :2])
    lower_right = torch.max(boxes1[:, None, 2:], boxes2[None, :, 2:])
    width, height = (lower_right - upper_left).unbind(dim=-1)
    hull = width * height
    both = valid_boxes(boxes1)[:, None] & valid_boxes(boxes2)[None, :]
    return torch.where(both, intersection / union - (hull - union) / hull, -1)


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Tensor | None = None
) -> Tensor:
    """Greedy NMS: indices (M,) by falling score, equal scores by rising index.

    Sorted boxes are taken in blocks. Within a block "suppressed by a kept box" is iterated to its
    fixed point, which is the greedy result: box i is right after i rounds at the latest, since it
    depends on earlier boxes only.
    """
    # A NaN score is the lowest of all, as if it were minus infinity.
    order = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    order = order.sort(stable=True, descending=True).indices
    boxes = boxes[order]
    groups = None if groups is None else groups[order]
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for begin in range(0, len(boxes), NMS_BLOCK):
        block = slice(begin, begin + NMS_BLOCK)
        overlaps = _suppresses(boxes, groups, block, block, iou_threshold).triu(diagonal=1)
        alive[block] = _greedy(overlaps, alive[block])
        later = slice(begin + NMS_BLOCK, None)
        kept = alive[block].nonzero().flatten() + begin
        alive[later] &= ~_suppresses(boxes, groups, kept, later, iou_threshold).any(dim=0)
    return order[alive]


def nms_padded(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor]:
    """NMS of a batch: indices (B, max_detections), -1 where there are no more, and counts (B,)."""
    indices = torch.full((len(boxes), max_detections), -1, device=boxes.device)
    counts = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    for i in range(len(boxes)):
        candidates = (scores[i] > -math.inf).nonzero().flatten()
        picked = [values[i][candidates] for values in (boxes, scores, groups)]
        kept = candidates[nms(picked[0], picked[1], iou_threshold, picked[2])][:max_detections]
        indices[i, : len(kept)] = kept
        counts[i] = len(kept)
    return indices, counts


def _suppresses(
    boxes: Tensor, groups: Tensor | None, rows: slice | Tensor, columns: slice, iou_threshold: float
) -> Tensor:
    """Whether a row's box overlaps a column's, of the same group, by more than the threshold."""
    iou = box_iou(boxes[rows], boxes[columns])
    overlaps = iou > _round_down(iou_threshold, iou.dtype)
    if groups is not None:
        overlaps &= groups[rows][:, None] == groups[columns][None, :]
    return overlaps


def _greedy(overlaps: Tensor, alive: Tensor) -> Tensor:
    matrix = overlaps.float()
    kept = alive
    while True:
        suppressed = (kept.float() @ matrix) > 0
        new = alive & ~suppressed
        if torch.equal(new, kept):
            return kept
        kept = new


def _round_down(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of ``dtype`` up to ``threshold``.

    A float32 IoU exceeds a float64 threshold exactly if it exceeds this number, whereas torch
    would round the threshold to the nearest float32 first, which may lie above it.
    """
    rounded = torch.tensor(threshold, dtype=dtype)
    if rounded.item() > threshold:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype))
    return rounded.item()


def match_anchors(
    gt_boxes: Tensor,
    anchors: Tensor,
    foreground_thresh: float,
    background_thresh: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Match anchors (R, 4) to ground truth (G, 4): indices (R,) int64 and labels (R,) int8."""
    if len(gt_boxes) == 0 or len(anchors) == 0:
        matched = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        return matched, matched.to(torch.int8)
    iou = box_iou(gt_boxes, anchors)
    best, matched = iou.max(dim=0)
    foreground = best >= foreground_thresh
    if allow_low_quality:
        best_of_gt = iou.max(dim=1, keepdim=True).values
        foreground = foreground | ((iou == best_of_gt) & (best_of_gt > 0)).any(dim=0)
    labels = torch.where(best < background_thresh, 0, -1).to(torch.int8)
    return matched, torch.where(foreground, torch.ones_like(labels), labels)


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the focal loss (Lin et al. 2017, eq. 5) over logits (R, K) and classes (R,)."""
    targets = classes[:, None] == torch.arange(logits.shape[1], device=logits.device)
    p = logits.sigmoid()
    # Not 0, where a power below 1 has an infinite slope.
    p_wrong = torch.where(targets, 1 - p, p).clamp(min=torch.finfo(p.dtype).tiny)
    weight = torch.where(targets, alpha, 1 - alpha) * p_wrong**gamma
    weight = torch.where(classes[:, None] >= 0, weight, 0)
    entropy = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
    return (weight * entropy).sum()
