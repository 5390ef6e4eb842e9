"""COCO evaluation of 5,000 images beside pycocotools and faster-coco-eval."""

import contextlib
import gc
import importlib
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from detlite.evaluation import coco_arrays, coco_summary, evaluate_boxes

Content = dict[str, list[dict[str, Any]]]
Results = list[dict[str, Any]]
# Package, module and class of a COCO file and of its evaluation.
PEERS = {
    "pycocotools": ("pycocotools.coco:COCO", "pycocotools.cocoeval:COCOeval"),
    "faster-coco-eval": ("faster_coco_eval:COCO", "faster_coco_eval:COCOeval_faster"),
}
NUM_IMAGES, NUM_CLASSES, DETECTIONS = 5000, 80, 100
OBJECTS = 7.3  # of an image, as in COCO val2017


def run(repeat: int) -> list[dict[str, object]]:
    """Seconds from the results list in memory to the twelve numbers, each in this process.

    A peer gets what its users give it: COCO, loadRes, evaluate, accumulate, summarize. pycocotools
    runs once, because it takes most of a minute.
    """
    truth, results = large_set()
    num_boxes, num_found = len(truth["annotations"]), len(results)
    work = f"{len(truth['images']):,} images, {num_boxes:,} boxes, {num_found:,} detections"
    ours, stats, arrays = _measure(partial(_ours, truth), repeat, lambda: results)
    rows: list[dict[str, object]] = [{"work": work, "evaluation by": "detlite", "seconds": ours}]
    for name, places in PEERS.items():
        try:
            coco, evaluation = (_load(place) for place in places)
        except ImportError:
            rows.append({"evaluation by": name, "result": f"not there: pip install {name}"})
            continue
        runs = 1 if name == "pycocotools" else min(repeat, 3)
        seconds, peer_stats, peer_arrays = _measure(
            partial(_peer, coco, evaluation, truth), runs, lambda: [{**entry} for entry in results]
        )
        rows.append(
            {
                "work": work,
                "evaluation by": name,
                "seconds": seconds,
                "times detlite's": seconds / ours,
                "result": compared([stats, *arrays], [peer_stats, *peer_arrays]),
            }
        )
    return rows


def large_set(
    seed: int = 0, num_images: int = NUM_IMAGES, detections: int = DETECTIONS
) -> tuple[Content, Results]:
    """Ground truth and results of the size of COCO val2017, with classes as uneven as there.

    Every object is found by a detection near it seven times in eight, with a score that rises with
    the overlap; further detections, most of them low, make ``detections`` of each image.
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, NUM_CLASSES + 1) ** 0.9
    share /= share.sum()
    truth: Content = {
        "images": [{"id": 7 * i + 1, "height": 480, "width": 640} for i in range(num_images)],
        "categories": [{"id": k + 1 + k // 9, "name": f"class {k}"} for k in range(NUM_CLASSES)],
        "annotations": [],
    }
    results: Results = []
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        count = min(int(rng.poisson(OBJECTS)), detections)
        boxes, classes = _boxes(rng, count), rng.choice(NUM_CLASSES, count, p=share)
        fill = rng.uniform(0.5, 0.9, count)
        crowd = rng.random(count) < 0.01
        common = [{"image_id": image["id"], "category_id": ids[k]} for k in classes]
        truth["annotations"] += [
            {**entry, "id": len(truth["annotations"]) + 1 + i, "bbox": boxes[i].tolist(),
             "area": float(boxes[i, 2] * boxes[i, 3] * fill[i]), "iscrowd": int(crowd[i])}
            for i, entry in enumerate(common)
        ]  # fmt: skip
        found = np.flatnonzero(rng.random(count) < 0.875)
        noise = rng.normal(0, 1, (len(found), 4)) * rng.gamma(1, 0.07, (len(found), 1))
        near = boxes[found] + noise * boxes[found][:, [2, 3, 2, 3]]
        near[:, 2:] = near[:, 2:].clip(1)
        scores = np.clip(0.9 - np.abs(noise).sum(1) + rng.normal(0, 0.15, len(found)), 0.01, 0.999)
        others = detections - len(found)
        all_boxes = np.concatenate([near, _boxes(rng, others)]).round(2)
        all_scores = np.concatenate([scores, rng.beta(0.5, 8, others)]).round(4)
        all_classes = np.concatenate([classes[found], rng.choice(NUM_CLASSES, others, p=share)])
        order = np.argsort(-all_scores)
        results += [
            {"image_id": image["id"], "category_id": ids[k], "bbox": box, "score": score}
            for k, box, score in zip(
                all_classes[order], all_boxes[order].tolist(), all_scores[order].tolist(),
                strict=True,
            )
        ]  # fmt: skip
    return truth, results


def compared(ours: list[np.ndarray], peer: list[np.ndarray]) -> str:
    """Whether the twelve numbers, and the curves, are the same to the last bit."""
    names = ("numbers", "precision", "recall", "scores")
    parts = []
    for name, a, b in zip(names, ours, peer, strict=True):
        b = np.asarray(b, np.float64).reshape(a.shape)
        same = np.array_equal(a, b)
        parts.append(f"{name} {'bit-equal' if same else f'differ by {np.abs(a - b).max():.1e}'}")
    return ", ".join(parts)


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes XYWH (count, 4) of sizes between 8 and 400 pixels, small ones more often."""
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * np.maximum([640, 480] - sides, 1)
    return np.concatenate([corners, sides], axis=1).round(2)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _ours(truth: Content, results: Results) -> tuple[np.ndarray, list[np.ndarray]]:
    curves = evaluate_boxes(coco_arrays(truth, results)).curves
    stats = np.array([*coco_summary(curves, (1, 10, 100)).values()])
    return stats, [curves.precision, curves.recall, curves.scores]


def _peer(
    load: Callable[[], Any], judge: Callable[..., Any], truth: Content, results: Results
) -> tuple[np.ndarray, list[np.ndarray]]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = load()
        coco.dataset = truth
        coco.createIndex()
        evaluation = judge(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    curves = [evaluation.eval[key] for key in ("precision", "recall", "scores")]
    return np.asarray(evaluation.stats[:12]), curves


def _measure(
    work: Callable[[Results], tuple[np.ndarray, list[np.ndarray]]],
    repeat: int,
    fresh: Callable[[], Results],
) -> tuple[float, np.ndarray, list[np.ndarray]]:
    """Median seconds; a run's results are made anew before it, as peers write into them."""
    seconds = []
    for _ in range(repeat):
        results = fresh()
        gc.collect()
        start = time.perf_counter()
        stats, curves = work(results)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), stats, curves
