# AP of many resamples of the images at once; included by _coco_match.pyx.
#
# LANES resamples go through the detections together, so that what a detection found is read once
# for all of them, and the compiler turns the loops over lanes into vector instructions.

cdef enum:
    LANES = 16

RESAMPLES_AT_ONCE = LANES


cdef struct Lanes:
    int32_t objects[LANES]
    int32_t false_at_all[LANES]
    int32_t true_positives[MAX_THRESHOLDS][LANES]
    int32_t false_positives[MAX_THRESHOLDS][LANES]
    int64_t length[MAX_THRESHOLDS]


def resampled_precision(matches, const int32_t[:, ::1] weights, double[::1] means):
    """AP (LANES,) of all areas at the last limit, for weights (N, LANES) of the images.

    A class that a resample leaves without an object does not count in it; without any class the
    mean is NaN.
    """
    cdef const int32_t[::1] images = matches.images
    cdef const int32_t[::1] gt_images = matches.gt_images
    cdef const double[::1] points = matches.recall_points
    cdef const uint16_t[:, ::1] matched = matches.matched, ignored = matches.ignored
    cdef const uint8_t[:, ::1] counted = matches.gt_counted
    cdef const int64_t[::1] begins = matches.offsets, ends = matches.ends
    cdef const int64_t[::1] gt_begins = matches.gt_offsets
    cdef int32_t num_thresholds = len(matches.thresholds), t, l
    cdef int64_t most = max(1, np.diff(matches.gt_offsets).max(initial=0)), g
    cdef Py_ssize_t k
    # After each true detection; each object makes one detection true.
    cdef double[:, :, ::1] precision = np.empty((num_thresholds, most, LANES))
    cdef int32_t[:, :, ::1] recalled = np.empty((num_thresholds, most, LANES), np.int32)
    cdef double sums[LANES]
    cdef int64_t present[LANES]
    cdef Lanes lanes
    for l in range(LANES):
        sums[l], present[l] = 0, 0
    if weights.shape[0]:
        with nogil:
            for k in range(begins.shape[0] - 1):
                for l in range(LANES):
                    lanes.objects[l] = 0
                for g in range(gt_begins[k], gt_begins[k + 1]):
                    if counted[g, 0]:
                        for l in range(LANES):
                            lanes.objects[l] += weights[gt_images[g], l]
                for l in range(LANES):
                    present[l] += lanes.objects[l] > 0
                count_in_lanes(&lanes, images, matched, ignored, begins[k], ends[k],
                               &weights[0, 0], num_thresholds, precision, recalled)
                for t in range(num_thresholds):
                    add_curves(&lanes, &precision[t, 0, 0], &recalled[t, 0, 0], lanes.length[t],
                               points, sums)
    for l in range(LANES):
        total = present[l] * num_thresholds * points.shape[0]
        means[l] = sums[l] / total if total else NAN


cdef void count_in_lanes(
    Lanes* lanes, const int32_t[::1] images, const uint16_t[:, ::1] matched,
    const uint16_t[:, ::1] ignored, int64_t begin, int64_t end, const int32_t* weights,
    int32_t num_thresholds, double[:, :, ::1] precision, int32_t[:, :, ::1] recalled,
) noexcept nogil:
    """Go through the detections of a class, best score first."""
    cdef int64_t i, place
    cdef int32_t t, l
    cdef uint16_t hit, skipped, every = <uint16_t>((1 << num_thresholds) - 1)
    cdef const int32_t* weight
    cdef double* found
    cdef int32_t* recall
    for l in range(LANES):
        lanes.false_at_all[l] = 0
    for t in range(num_thresholds):
        lanes.length[t] = 0
        for l in range(LANES):
            lanes.true_positives[t][l] = lanes.false_positives[t][l] = 0
    for i in range(begin, end):
        skipped = ignored[i, 0]
        hit = matched[i, 0] & ~skipped
        weight = weights + <int64_t>images[i] * LANES
        if not (hit | skipped):
            for l in range(LANES):
                lanes.false_at_all[l] += weight[l]
            continue
        if skipped == every:
            continue
        for t in range(num_thresholds):
            if hit >> t & 1:
                place = lanes.length[t]
                lanes.length[t] += 1
                found, recall = &precision[t, place, 0], &recalled[t, place, 0]
                for l in range(LANES):
                    lanes.true_positives[t][l] += weight[l]
                    recall[l] = lanes.true_positives[t][l]
                    found[l] = <double>recall[l] / (
                        <double>(lanes.false_positives[t][l] + lanes.false_at_all[l] + recall[l])
                        + SPACING
                    )
            elif not skipped >> t & 1:
                for l in range(LANES):
                    lanes.false_positives[t][l] += weight[l]


cdef void add_curves(
    const Lanes* lanes, double* precision, const int32_t* recalled, int64_t n,
    const double[::1] points, double* sums,
) noexcept nogil:
    """Add the greatest precision from each recall point on to the sum of each lane."""
    cdef int64_t i
    cdef int32_t l
    cdef int32_t reached[LANES]
    cdef int32_t needed[LANES]
    for i in range((n - 1) * LANES - 1, -1, -1):
        if precision[i + LANES] > precision[i]:
            precision[i] = precision[i + LANES]
    for l in range(LANES):
        reached[l] = 0
        # A lane without objects reaches nothing.
        needed[l] = 0 if lanes.objects[l] else 0x7FFFFFFF
    for i in range(n):
        for l in range(LANES):
            while recalled[l] >= needed[l]:
                sums[l] += precision[l]
                reached[l] += 1
                needed[l] = objects_needed(reached[l], lanes.objects[l], points)
        precision += LANES
        recalled += LANES


cdef int32_t objects_needed(
    int32_t reached, int32_t objects, const double[::1] points
) noexcept nogil:
    """The fewest found objects whose recall, as a quotient, is the next point or more."""
    if reached == points.shape[0]:
        return 0x7FFFFFFF
    cdef int32_t needed = <int32_t>(points[reached] * objects)
    while <double>needed / <double>objects < points[reached]:
        needed += 1
    return needed
