"""The same evaluation by pycocotools, where the compiled part could not be built.

No other file knows pycocotools.
"""

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from .coco_arrays import CocoArrays

if TYPE_CHECKING:
    from .coco_matching import Matches


def evaluate_with_pycocotools(
    arrays: CocoArrays, matches: "Matches"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and scores, as in ``CocoCurves``; fills in the matches of all areas."""
    # pycocotools takes a third of a second to import, and only this function needs it
    from pycocotools.cocoeval import COCOeval

    # It prints; there is no switch for it.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(arrays, _annotations(arrays)), _coco(arrays, _results(arrays)),
                              "bbox")  # fmt: skip
        evaluation.params.maxDets = list(matches.limits)
        evaluation.evaluate()
        evaluation.accumulate()
    _fill(matches, evaluation.evalImgs, len(arrays.image_ids))
    return tuple(evaluation.eval[key] for key in ("precision", "recall", "scores"))


def _coco(arrays: CocoArrays, annotations: list[dict[str, Any]]) -> Any:
    # optional, as above
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(len(arrays.image_ids))],
        "categories": [{"id": k} for k in range(len(arrays.category_ids))],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _annotations(arrays: CocoArrays) -> list[dict[str, Any]]:
    columns = (
        arrays.gt_images, arrays.gt_classes, arrays.gt_boxes, arrays.gt_areas, arrays.gt_crowd
    )  # fmt: skip
    return [
        {"id": number, "image_id": i, "category_id": k, "bbox": box, "area": area, "iscrowd": crowd}
        for number, (i, k, box, area, crowd) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]


def _results(arrays: CocoArrays) -> list[dict[str, Any]]:
    columns = (arrays.images, arrays.classes, arrays.boxes, arrays.scores)
    return [
        {
            "id": number,
            "image_id": i,
            "category_id": k,
            "bbox": box,
            "score": score,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (i, k, box, score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]


def _fill(matches: "Matches", found: list[Any], num_images: int) -> None:
    """Write the matches of all areas at the last limit, class by class."""
    num_areas, at = len(matches.area_ranges), 0
    bits = 1 << np.arange(len(matches.thresholds))[:, None]
    matches.matched[:], matches.ignored[:] = 0, 0
    for k in range(len(matches.ends)):
        begin = k * num_areas * num_images
        images = [entry for entry in found[begin : begin + num_images] if entry is not None]
        matches.offsets[k] = at
        scores = np.concatenate([[], *(entry["dtScores"] for entry in images)])
        order = np.argsort(-scores, kind="stable")
        here = slice(at, at + len(scores))
        matches.scores[here] = scores[order]
        for name, key in (("matched", "dtMatches"), ("ignored", "dtIgnore")):
            masks = [((entry[key] != 0) * bits).sum(axis=0) for entry in images]
            getattr(matches, name)[here, 0] = np.concatenate([[], *masks])[order]
        at += len(scores)
        matches.ends[k] = at
    matches.offsets[-1] = at
