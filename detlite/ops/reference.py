"""Every op in plain torch: written to be read, the oracle of the tests.

It also does the work where there is no native kernel: signatures are the schemas of
csrc/library.cpp. The arguments are taken as they come; the checks stand in the faces beside this
file. Types of 16 bits are computed in float32.
"""

import math
from itertools import pairwise

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
    """Intersection and union (N, M) of every pair of valid boxes."""
    upper_left = torch.max(boxes1[:, None, :2], boxes2[None, :, :2])
    lower_right = torch.min(boxes1[:, None, 2:], boxes2[None, :, 2:])
    width, height = (lower_right - upper_left).relu().unbind(dim=-1)
    intersection = width * height
    union = box_area(boxes1)[:, None] + box_area(boxes2)[None, :] - intersection
    return intersection, union


def _only_valid(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) with those that are not valid replaced, and which are valid (N,).

    The ones in their place have an area, so that no derivative becomes 0 times infinity.
    """
    boxes, valid = widened(boxes), valid_boxes(widened(boxes))
    return torch.where(valid[:, None], boxes, boxes.new_tensor([0, 0, 1, 1])), valid


def widened(values: Tensor) -> Tensor:
    """Values of 16 bits as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair (N, 4) x (M, 4) -> (N, M); 0 where a box is bad."""
    wide1, valid1 = _only_valid(boxes1)
    wide2, valid2 = _only_valid(boxes2)
    intersection, union = _overlap(wide1, wide2)
    both = valid1[:, None] & valid2[None, :]
    return torch.where(both, intersection / union, 0).to(boxes1.dtype)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """GIoU of every pair (Rezatofighi et al. 2019, eq. 3), in (-1, 1]; -1 where a box is bad."""
    wide1, valid1 = _only_valid(boxes1)
    wide2, valid2 = _only_valid(boxes2)
    intersection, union = _overlap(wide1, wide2)
    upper_left = torch.min(wide1[:, None, :2], wide2[None, :, :2])
    lower_right = torch.max(wide1[:, None, 2:], wide2[None, :, 2:])
    size = lower_right - upper_left
    fits = size.prod(dim=-1).isfinite()[..., None]
    width, height = torch.where(fits, size, 1).unbind(dim=-1)
    hull = width * height
    both = valid1[:, None] & valid2[None, :]
    # A hull too large for the type is all but empty.
    empty = torch.where(fits[..., 0], (hull - union) / hull, 1)
    return torch.where(both, intersection / union - empty, -1).to(boxes1.dtype)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS: indices (M,) by falling score, equal scores by rising index."""
    return batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS in which a box suppresses only those of its own group: indices (M,) as of ``nms``.

    Sorted boxes are taken in blocks. Within a block "suppressed by a kept box" is iterated to its
    fixed point, which is the greedy result: box i is right after i rounds at the latest, since it
    depends on earlier boxes only.
    """
    # A NaN score is the lowest of all, as if it were minus infinity.
    order = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    order = order.sort(stable=True, descending=True).indices
    boxes, groups = widened(boxes)[order], groups[order]
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
        picked, groups_picked = boxes[i][candidates], groups[i][candidates]
        order = batched_nms(picked, scores[i][candidates], groups_picked, iou_threshold)
        kept = candidates[order][:max_detections]
        indices[i, : len(kept)] = kept
        counts[i] = len(kept)
    return indices, counts


def _suppresses(
    boxes: Tensor, groups: Tensor, rows: slice | Tensor, columns: slice, iou_threshold: float
) -> Tensor:
    """Whether a row's box overlaps a column's, of the same group, by more than the threshold."""
    iou = box_iou(boxes[rows], boxes[columns])
    overlaps = iou > _round_down(iou_threshold, iou.dtype)
    return overlaps & (groups[rows][:, None] == groups[columns][None, :])


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
    offsets: Tensor,
    anchors: Tensor,
    foreground_thresh: float,
    background_thresh: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Match anchors (R, 4) to each image's ground truth: indices (N, R) int64, labels (N, R) int8.

    Image i has the rows ``offsets[i]`` to ``offsets[i + 1]`` of ``gt_boxes`` (G, 4).
    """
    shape = (len(offsets) - 1, len(anchors))
    matched = torch.zeros(shape, dtype=torch.int64, device=anchors.device)
    labels = torch.zeros(shape, dtype=torch.int8, device=anchors.device)
    bounds = offsets.tolist()
    for i, (begin, end) in enumerate(pairwise(bounds)):
        if begin == end or len(anchors) == 0:
            continue
        iou = box_iou(widened(gt_boxes[begin:end]), widened(anchors))
        best, matched[i] = iou.max(dim=0)
        # Torch rounds the thresholds to the type of the IoU; the kernels do the same.
        labels[i] = torch.where(best < background_thresh, 0, -1)
        foreground = best >= foreground_thresh
        if allow_low_quality:
            best_of_gt = iou.max(dim=1, keepdim=True).values
            foreground = foreground | ((iou == best_of_gt) & (best_of_gt > 0)).any(dim=0)
        labels[i].masked_fill_(foreground, 1)
    return matched, labels


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the focal loss (Lin et al. 2017, eq. 5) over logits (R, K) and classes (R,)."""
    wrong, _, weight = _wrongness(logits, classes, alpha)
    return (weight * _faded(wrong, gamma) * -F.logsigmoid(-wrong)).sum()


def sigmoid_focal_loss_backward(
    grad: Tensor, logits: Tensor, classes: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Gradient (R, K) of the focal loss, times the gradient ``grad`` of the sum.

    With z the logit of being wrong, p = sigmoid(z) and s = softplus(z) = -log(1 - p), the loss is
    p^gamma s, and since dp/dz = p (1 - p), ds/dz = p, its derivative p^gamma (gamma (1 - p) s + p).
    """
    wrong, sign, weight = _wrongness(logits, classes, alpha)
    gamma = _finite(gamma, wrong.dtype)
    p, not_p = wrong.sigmoid(), (-wrong).sigmoid()
    slope = _faded(wrong, gamma) * (gamma * not_p * -F.logsigmoid(-wrong) + p)
    return (grad * sign * weight * slope).to(logits.dtype)


def _faded(wrong: Tensor, gamma: float) -> Tensor:
    """sigmoid(wrong)^gamma by its logarithm, so that p = 0 and p = 1 have derivatives."""
    if gamma == 0:
        return torch.ones_like(wrong)
    return (_finite(gamma, wrong.dtype) * F.logsigmoid(wrong)).exp()


def _finite(gamma: float, dtype: torch.dtype) -> float:
    """An exponent, infinity as the largest finite number: infinity times 0 would be a NaN."""
    return min(gamma, torch.finfo(dtype).max)


def _wrongness(logits: Tensor, classes: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """The logit of being wrong (R, K), its sign as to the logit, the weight; 0 in ignored rows."""
    logits = widened(logits)
    targets = classes[:, None] == torch.arange(logits.shape[1], device=logits.device)
    ignored = classes[:, None] < 0
    sign = torch.ones_like(logits).masked_fill(targets, -1)
    weight = torch.full_like(logits, 1 - alpha).masked_fill(targets, alpha)
    return (sign * logits).masked_fill(ignored, 0), sign, weight.masked_fill(ignored, 0)
