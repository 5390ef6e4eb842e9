"""Precision, recall and F1 at the score threshold that suits each class best."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .coco_matching import Matches


@dataclass(frozen=True)
class BestPoint:
    """The point of greatest F1 = 2PR / (P + R) on a class's curve at IoU 0.5.

    NaN without ground truth; without detections, or where none of them is true, the threshold is
    NaN and the rest 0.

    Attributes:
        score: Detections of this score or a higher one are kept.
        precision: True ones among the kept, in percent.
        recall: Found ones among the objects, in percent.
        f1: Harmonic mean of both (van Rijsbergen 1979), in percent.
    """

    score: float
    precision: float
    recall: float
    f1: float


def best_points(matches: "Matches") -> list[BestPoint]:
    """The best point of each class, of all areas, at the last limit of detections.

    Detections of equal score are kept or dropped together; of thresholds with equal F1 the highest
    is taken. Matching is COCO's, so that crowds, and what lies in them, do not count.
    """
    return [_best_point(matches, k) for k in range(len(matches.ends))]


def _best_point(matches: "Matches", k: int) -> BestPoint:
    objects = slice(matches.gt_offsets[k], matches.gt_offsets[k + 1])
    num_objects = int(matches.gt_counted[objects, 0].sum())
    if not num_objects:
        return BestPoint(math.nan, math.nan, math.nan, math.nan)
    kept = slice(matches.offsets[k], matches.ends[k])
    counts = matches.ignored[kept, 0] & 1 == 0  # bit 0 is the IoU threshold 0.5
    true = np.cumsum((matches.matched[kept, 0] & 1 == 1) & counts)
    num_kept = np.cumsum(counts)
    scores = matches.scores[kept]
    # A threshold keeps all detections of its score: only the last of equals is a point.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], len(scores) > 0))
    # F1 = 2 TP / (kept + objects), which the harmonic mean comes down to
    f1 = 2 * true[last] / (num_kept[last] + num_objects)
    if not len(f1) or not f1.max() > 0:
        return BestPoint(math.nan, 0.0, 0.0, 0.0)
    best = last[np.argmax(f1)]
    return BestPoint(
        float(scores[best]),
        100 * float(true[best] / num_kept[best]),
        100 * float(true[best] / num_objects),
        100 * float(f1.max()),
    )
