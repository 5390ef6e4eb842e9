"""A COCO evaluation for people, as tables, and for programs, as one dict."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from ..utils.tables import fits, fitted_table
from .bootstrap import Interval
from .coco_metrics import CocoEvaluation, CocoMetrics
from .confusion import ConfusionMatrix
from .reports import class_table

BACKGROUND = "background"

_SUMMARY = (
    ("AP", "AP, mean over IoU 0.50 to 0.95"),
    ("AP50", "AP at IoU 0.50"),
    ("AP75", "AP at IoU 0.75"),
    ("APs", "AP of small objects, area up to 32 x 32"),
    ("APm", "AP of medium objects"),
    ("APl", "AP of large objects, area from 96 x 96"),
    ("ARs", "AR of small objects"),
    ("ARm", "AR of medium objects"),
    ("ARl", "AR of large objects"),
)
_NUM_CONFUSIONS = 15


def class_metrics_table(metrics: CocoMetrics, class_names: Mapping[Any, str]) -> str:
    """AP, AP50, AR, and F1 with its precision, recall and score threshold, class by class."""
    columns = ["class", "AP", "AP50", "AR", "F1", "P", "R", "score"]
    rows = []
    for category, name in class_names.items():
        best = metrics.best_points[category]
        means = [column[category] for column in (metrics.class_ap, metrics.class_ap50,
                                                 metrics.class_ar)]  # fmt: skip
        rows.append([name, *means, best.f1, best.precision, best.recall, best.score])
    return class_table(columns, rows, num_groups=1 if len(rows) <= 20 else 2)


def summary_table(metrics: CocoMetrics, interval: Interval | None) -> str:
    """The twelve numbers, one a line, and the interval of AP."""
    meaning = dict(_SUMMARY)
    rows = []
    for name, value in metrics.summary.items():
        words = meaning.get(name, f"AR, at most {name[2:]} detections of a class in an image")
        rows.append([name, value, words])
    options: dict[str, Any] = {"tablefmt": "pipe", "floatfmt": ".3f", "numalign": "left"}
    table = fitted_table(rows, ["", "percent", "meaning"], **options)
    if interval is None:
        return table
    return (
        f"{table}\n\n{100 * interval.level:g} % interval of AP: {interval.low:.2f} to "
        f"{interval.high:.2f} (bootstrap, {interval.num_resamples} resamples of the images)"
    )


def confusion_table(confusion: ConfusionMatrix, class_names: list[str]) -> str:
    """The whole matrix where it fits a terminal, else the commonest confusions."""
    names = [*class_names, BACKGROUND]
    matrix = [[name, *row] for name, row in zip(names, confusion.counts.tolist(), strict=True)]
    heads = ["object \\ found as", *names]
    # One row first: of a thousand classes the whole is never wanted.
    if fits(tabulate(matrix[:1], heads, tablefmt="pipe")):
        table = tabulate(matrix, heads, tablefmt="pipe", numalign="left")
        if fits(table):
            return table
    totals = confusion.counts.sum(axis=1)
    rows = [
        [class_names[a], class_names[b], count, f"{100 * count / totals[a]:.1f} %"]
        for a, b, count in confusion.most_confused(_NUM_CONFUSIONS)
    ]
    columns = ["object", "found as", "times", "of its objects"]
    return fitted_table(rows, columns, num_keys=2, tablefmt="pipe", numalign="left")


def report_json(
    evaluation: CocoEvaluation, interval: Interval | None, confusion: ConfusionMatrix
) -> dict[str, Any]:
    """All numbers, in percent where they are shares; NaN where there is no ground truth.

    ``bbox`` is what ``COCOEvaluator`` returns and writes; ``classes`` has the same and more by
    class; ``confusion`` has objects in rows and detections in columns, background last.
    """
    arrays, metrics = evaluation.arrays, evaluation.metrics
    names = dict(zip(arrays.category_ids, arrays.class_names, strict=True))
    return {
        "num_images": len(arrays.image_ids),
        "num_annotations": len(arrays.gt_areas),
        "num_detections": len(arrays.scores),
        "max_detections": list(evaluation.matches.limits),
        "bbox": metrics.flat(names),
        "AP_interval": None if interval is None else vars(interval),
        "classes": [
            {
                "id": category,
                "name": name,
                "AP": metrics.class_ap[category],
                "AP50": metrics.class_ap50[category],
                "AR": metrics.class_ar[category],
                "best": vars(metrics.best_points[category]),
            }
            for category, name in names.items()
        ],
        "confusion": {
            "score_threshold": confusion.score_threshold,
            "iou_threshold": confusion.iou_threshold,
            "classes": [*arrays.class_names, BACKGROUND],
            "counts": confusion.counts.tolist(),
        },
    }
