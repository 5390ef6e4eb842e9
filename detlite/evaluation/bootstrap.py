"""How far AP would move with other images: a bootstrap interval."""

import math
from dataclasses import dataclass

import numpy as np

from . import compiled
from .coco_matching import Matches, run_threads


@dataclass(frozen=True)
class Interval:
    """An interval of AP in percent.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        level: The share of resamples within, e.g. 0.95.
        num_resamples: How many resamples were drawn.
    """

    low: float
    high: float
    level: float
    num_resamples: int


def ap_interval(
    matches: Matches, *, num_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Bootstrap AP over images by the percentile method (Efron and Tibshirani 1993, chapter 13).

    Each resample draws N of the N images with replacement, and AP is computed of it exactly: an
    image that was drawn w times counts w times, as if its copies had ids of their own that follow
    each other (detections of one class, image and score excepted: their copies stand in a row).
    The ends are percentiles of the resamples' APs. A class that a resample leaves without objects
    is not in its mean. The smaller the data set, the more the copies of an object raise AP: then
    the interval lies high, and the AP of the data set near its lower end.

    Args:
        matches: Of the whole data set.
        num_resamples: How many to draw.
        level: The share of them that the interval holds.
        seed: The draws depend on it and on the number of the resample alone.

    Returns:
        The interval; NaN without ground truth, None where the compiled part is missing.
    """
    if not compiled.COMPILED:
        return None
    means = resample_ap(matches, num_resamples, seed)
    means = means[~np.isnan(means)]
    if not len(means):
        return Interval(math.nan, math.nan, level, num_resamples)
    low, high = 100 * np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, num_resamples)


def resample_ap(matches: Matches, num_resamples: int, seed: int) -> np.ndarray:
    """AP (num_resamples,) of the resamples as fractions; NaN where none has an object."""
    lanes = compiled.RESAMPLES_AT_ONCE
    means = np.empty(-(-num_resamples // lanes) * lanes)

    def run(begin: int) -> None:
        numbers = range(begin, begin + lanes)
        weights = [resample_weights(len(matches.weights), seed, number) for number in numbers]
        compiled.resampled_precision(
            matches, np.ascontiguousarray(np.stack(weights, axis=1)), means[begin : begin + lanes]
        )

    run_threads(run, range(0, num_resamples, lanes), worth_it=True)
    return means[:num_resamples]


def resample_weights(num_images: int, seed: int, number: int) -> np.ndarray:
    """How often resample ``number`` holds each image, (N,) int32."""
    if not num_images:
        return np.zeros(0, np.int32)
    drawn = np.random.default_rng((seed, number)).integers(num_images, size=num_images)
    return np.bincount(drawn, minlength=num_images).astype(np.int32)
