# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""COCO's matching of boxes and its curves, over flat arrays, to the last bit as in pycocotools.

Floating-point operations stand in pycocotools' order and must stay there: this file is compiled
without -ffast-math, and with -ffp-contract=off, because a fused multiply-add rounds once less.
Every function lets go of the GIL, and classes (or resamples) are independent of each other, so
that plain Python threads run them side by side.

A mask holds one bit for each IoU threshold, the first threshold in the lowest bit.
"""

from libc.math cimport NAN, isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t

import numpy as np

cdef enum:
    AREAS = 4
    MAX_THRESHOLDS = 16


cdef struct Kept:
    # What a detection that was kept has found, at each threshold in each range of area.
    int32_t index
    int32_t rank
    uint16_t matched[AREAS]
    uint16_t ignored[AREAS]


cdef struct Objects:
    # Those of one class, sorted by image, and room for the pairs of one detection.
    int64_t count
    const double* boxes
    const int32_t* images
    const uint8_t* counted
    const uint8_t* crowd
    uint16_t* taken
    int32_t* candidates
    double* ious


include "_coco_order.pxi"
include "_coco_curves.pxi"
include "_coco_resample.pxi"
include "_coco_read.pxi"


cdef double box_iou(const double* d, const double* g, bint crowd) noexcept nogil:
    """IoU of two boxes XYWH; within a crowd box, the share of the detection that it covers."""
    cdef double right = d[0] + d[2] if d[0] + d[2] < g[0] + g[2] else g[0] + g[2]
    cdef double width = right - (d[0] if d[0] > g[0] else g[0])
    if width <= 0:
        return 0
    cdef double lower = d[1] + d[3] if d[1] + d[3] < g[1] + g[3] else g[1] + g[3]
    cdef double height = lower - (d[1] if d[1] > g[1] else g[1])
    if height <= 0:
        return 0
    cdef double shared = width * height
    cdef double area = d[2] * d[3]
    return shared / (area if crowd else area + g[2] * g[3] - shared)


cdef int32_t best_object(
    const int32_t* candidates, const double* ious, int32_t n, double threshold,
    const uint8_t* counted, const uint8_t* crowd, const uint16_t* taken, uint16_t bit,
) noexcept nogil:
    """The free object of greatest IoU, the last of equals; an ignored one if no other is there.

    Comparisons are pycocotools' own, which an IoU of NaN (areas that underflow: 0 / 0) passes.
    """
    cdef int32_t i, g, best = -1
    cdef double least = threshold
    for i in range(n):
        g = candidates[i]
        if counted[g * AREAS] and not taken[g * AREAS] & bit and not ious[i] < least:
            least, best = ious[i], g
    if best >= 0:
        return best
    for i in range(n):
        g = candidates[i]
        if counted[g * AREAS] or (taken[g * AREAS] & bit and not crowd[g]):
            continue  # a crowd is never used up
        if not ious[i] < least:
            least, best = ious[i], g
    return best


def match_class(arrays, matches, int k):
    """Match the detections of class ``k`` image by image, and sort those that were kept by score.

    Args:
        arrays: A ``CocoArrays``.
        matches: The ``Matches`` that is filled in.
        k: The class.
    """
    cdef const double[:, ::1] boxes = arrays.boxes, gt_boxes = matches.gt_boxes
    cdef const double[:, ::1] areas = matches.area_ranges
    cdef const double[::1] scores = arrays.scores, thresholds = matches.thresholds
    cdef const int32_t[::1] images = arrays.images, gt_images = matches.gt_images
    cdef const int32_t[::1] order = matches.order
    cdef const uint8_t[:, ::1] counted = matches.gt_counted
    cdef const uint8_t[::1] crowd = matches.gt_crowd
    cdef int64_t begin = matches.offsets[k], n = matches.offsets[k + 1] - begin, num_kept, i
    cdef int64_t gt_begin = matches.gt_offsets[k], gt_end = matches.gt_offsets[k + 1]
    cdef int32_t limit = max(matches.limits)
    if n == 0:
        return
    cdef uint8_t[::1] key_room = np.empty(2 * n * sizeof(Key), np.uint8)
    cdef uint8_t[::1] kept_room = np.zeros(n * sizeof(Kept), np.uint8)
    cdef int32_t[::1] candidates = np.empty(gt_end - gt_begin + 1, np.int32)
    cdef double[::1] ious = np.empty(gt_end - gt_begin + 1)
    cdef uint16_t[:, ::1] taken = np.zeros((gt_end - gt_begin + 1, AREAS), np.uint16)
    cdef Key* keys = <Key*>&key_room[0]
    cdef Kept* kept = <Kept*>&kept_room[0]
    cdef Objects objects
    objects.boxes, objects.images = &gt_boxes[gt_begin, 0], &gt_images[gt_begin]
    objects.counted, objects.crowd = &counted[gt_begin, 0], &crowd[gt_begin]
    objects.taken, objects.count = &taken[0, 0], gt_end - gt_begin
    objects.candidates, objects.ious = &candidates[0], &ious[0]
    with nogil:
        num_kept = match_images(
            boxes, scores, images, &order[begin], n, limit, &objects, thresholds, areas, keys, kept
        )
        for i in range(num_kept):
            keys[i].score, keys[i].place = scores[kept[i].index], <int32_t>i
        sort_falling(keys, keys + n, num_kept)
    write_kept(matches, begin, num_kept, keys, kept, images)
    matches.ends[k] = begin + num_kept


cdef void write_kept(
    matches, int64_t begin, int64_t n, const Key* keys, const Kept* kept,
    const int32_t[::1] images,
):
    """Copy what was found, in the order of scores, to where its class begins."""
    cdef int32_t[::1] out_images = matches.images, out_ranks = matches.ranks
    cdef int32_t[::1] out_index = matches.index
    cdef double[::1] out_scores = matches.scores
    cdef uint16_t[:, ::1] matched = matches.matched, ignored = matches.ignored
    cdef int64_t i, at
    cdef int32_t a
    cdef const Kept* one
    with nogil:
        for i in range(n):
            one, at = kept + keys[i].place, begin + i
            out_index[at], out_ranks[at] = one.index, one.rank
            out_images[at], out_scores[at] = images[one.index], keys[i].score
            for a in range(AREAS):
                matched[at, a], ignored[at, a] = one.matched[a], one.ignored[a]


cdef int64_t match_images(
    const double[:, ::1] boxes, const double[::1] scores, const int32_t[::1] images,
    const int32_t* order, int64_t n, int32_t limit, const Objects* objects,
    const double[::1] thresholds, const double[:, ::1] areas, Key* keys, Kept* kept,
) noexcept nogil:
    """Match the n detections of a class, sorted by image; returns how many were kept."""
    cdef int64_t d = 0, num_kept = 0, first = 0, end = 0
    cdef int32_t image, found, rank
    while d < n:
        image, found = images[order[d]], 0
        while d < n and images[order[d]] == image:
            keys[found].score, keys[found].place = scores[order[d]], order[d]
            found += 1
            d += 1
        sort_falling(keys, keys + n, found)
        first = end
        while first < objects.count and objects.images[first] < image:
            first += 1
        end = first
        while end < objects.count and objects.images[end] == image:
            end += 1
        for rank in range(found if found < limit else limit):
            kept[num_kept].index, kept[num_kept].rank = keys[rank].place, rank
            if end > first:
                match_one(
                    &boxes[keys[rank].place, 0], objects, first, <int32_t>(end - first),
                    thresholds, kept + num_kept,
                )
            ignore_outside(
                boxes[keys[rank].place, 2] * boxes[keys[rank].place, 3], areas,
                <uint16_t>((1 << thresholds.shape[0]) - 1), kept + num_kept,
            )
            num_kept += 1
    return num_kept


cdef void match_one(
    const double* box, const Objects* objects, int64_t first, int32_t num_objects,
    const double[::1] thresholds, Kept* kept,
) noexcept nogil:
    """Give a detection the best object of its image and class, at each threshold and area."""
    cdef int32_t g, t, a, best, n = 0
    cdef uint16_t bit
    cdef double iou
    cdef bint is_nan = False
    cdef const uint8_t* counted
    cdef uint16_t* taken
    for g in range(num_objects):
        iou = box_iou(box, objects.boxes + 4 * (first + g), objects.crowd[first + g])
        is_nan = is_nan or iou != iou
        # The least one: what is below it is below all, but nothing is less than NaN.
        if is_nan or not iou < thresholds[0]:
            objects.candidates[n], objects.ious[n] = g, iou
            n += 1
    for a in range(AREAS if n else 0):
        counted = objects.counted + first * AREAS + a
        taken = objects.taken + first * AREAS + a
        for t in range(thresholds.shape[0]):
            bit = <uint16_t>(1 << t)
            best = best_object(objects.candidates, objects.ious, n, thresholds[t], counted,
                               objects.crowd + first, taken, bit)
            if best >= 0:
                kept.matched[a] |= bit
                taken[best * AREAS] |= bit
                if not counted[best * AREAS]:
                    kept.ignored[a] |= bit


cdef void ignore_outside(
    double area, const double[:, ::1] ranges, uint16_t every, Kept* kept
) noexcept nogil:
    """Ignore a detection outside of an area range, where it has no object."""
    cdef int32_t a
    for a in range(AREAS):
        if area < ranges[a, 0] or area > ranges[a, 1]:
            kept.ignored[a] |= every & ~kept.matched[a]
