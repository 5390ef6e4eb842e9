# Precision over recall of one class, with a weight for each image; included by _coco_match.pyx.
#
# Detections that are true at no threshold and false at all of them are nearly all there are, so
# they share one count. A precision can only be the greatest from some recall on where a detection
# is true, so only those are kept.

cdef double SPACING = 2.0 ** -52  # numpy.spacing(1), which keeps 0 / 0 out of a precision


cdef struct Tally:
    # One row of `capacity` places for each threshold: what held after each true detection.
    int64_t capacity
    double* precision
    int64_t* recalled
    double* score
    int64_t true_positives[MAX_THRESHOLDS]
    int64_t false_positives[MAX_THRESHOLDS]
    int64_t length[MAX_THRESHOLDS]
    double first_score
    bint empty


cdef void count_detections(
    Tally* tally, const int32_t[::1] images, const int32_t[::1] ranks, const double[::1] scores,
    const uint16_t[:, ::1] matched, const uint16_t[:, ::1] ignored, int64_t begin, int64_t end,
    const int32_t* weights, int32_t area, int32_t limit, int32_t num_thresholds,
) noexcept nogil:
    """Go through the detections of a class, best score first."""
    cdef int64_t i, place, weight, false_at_all = 0
    cdef int32_t t
    cdef uint16_t hit, skipped, every = <uint16_t>((1 << num_thresholds) - 1)
    tally.empty = True
    for t in range(num_thresholds):
        tally.true_positives[t] = tally.false_positives[t] = tally.length[t] = 0
    for i in range(begin, end):
        weight = weights[images[i]]
        if ranks[i] >= limit or weight == 0:
            continue
        if tally.empty:
            tally.empty, tally.first_score = False, scores[i]
        skipped = ignored[i, area]
        hit = matched[i, area] & ~skipped
        if not (hit | skipped):
            false_at_all += weight
            continue
        if skipped == every:
            continue
        for t in range(num_thresholds):
            if hit >> t & 1:
                tally.true_positives[t] += weight
                place = t * tally.capacity + tally.length[t]
                tally.precision[place] = <double>tally.true_positives[t] / (
                    <double>(tally.false_positives[t] + false_at_all + tally.true_positives[t])
                    + SPACING
                )
                tally.recalled[place] = tally.true_positives[t]
                tally.score[place] = scores[i]
                tally.length[t] += 1
            elif not skipped >> t & 1:
                tally.false_positives[t] += weight


cdef double read_curve(
    Tally* tally, int32_t t, int64_t num_objects, const double[::1] recall_points,
    double* precision, double* score,
) noexcept nogil:
    """Write the greatest precision from each recall on, and the score there; returns the recall."""
    cdef double* found = tally.precision + t * tally.capacity
    cdef int64_t* recalled = tally.recalled + t * tally.capacity
    cdef int64_t i, r = 0, n = tally.length[t]
    for i in range(n - 1, 0, -1):
        if found[i] > found[i - 1]:
            found[i - 1] = found[i]
    if not tally.empty:
        # The first detection reaches the recalls of 0 or less, true or not.
        while r < recall_points.shape[0] and recall_points[r] <= 0:
            precision[r], score[r] = found[0] if n else 0, tally.first_score
            r += 1
    for i in range(n):
        while (
            r < recall_points.shape[0]
            and <double>recalled[i] / <double>num_objects >= recall_points[r]
        ):
            precision[r], score[r] = found[i], tally.score[t * tally.capacity + i]
            r += 1
    while r < recall_points.shape[0]:
        precision[r] = score[r] = 0
        r += 1
    return <double>tally.true_positives[t] / <double>num_objects


cdef int64_t count_objects(
    const int32_t[::1] gt_images, const uint8_t[:, ::1] counted, int64_t begin, int64_t end,
    const int32_t* weights, int32_t area,
) noexcept nogil:
    cdef int64_t g, total = 0
    for g in range(begin, end):
        if counted[g, area]:
            total += weights[gt_images[g]]
    return total


def class_curves(matches, int k, double[:, :, ::1] precision, double[:, :, ::1] scores,
                 double[:, ::1] recall):
    """The curves of class ``k`` at every area range, limit and IoU threshold.

    Args:
        matches: The ``Matches``, with the weights of its images.
        k: The class.
        precision: (A * M, T, R), filled where the class has objects and left alone elsewhere.
        scores: (A * M, T, R), likewise.
        recall: (A * M, T), likewise.
    """
    cdef const int32_t[::1] images = matches.images, ranks = matches.ranks
    cdef const int32_t[::1] gt_images = matches.gt_images, weights = matches.weights
    cdef const double[::1] found = matches.scores, recall_points = matches.recall_points
    cdef const uint16_t[:, ::1] matched = matches.matched, ignored = matches.ignored
    cdef const uint8_t[:, ::1] counted = matches.gt_counted
    cdef int64_t begin = matches.offsets[k], end = matches.ends[k], num_objects
    cdef int64_t gt_begin = matches.gt_offsets[k], gt_end = matches.gt_offsets[k + 1]
    cdef const int32_t[::1] limits = np.array(matches.limits, np.int32)
    cdef int32_t t, a, m, num_thresholds = len(matches.thresholds), at
    if gt_end == gt_begin:
        return
    cdef Tally tally
    cdef double[:, :, ::1] held = np.empty((2, num_thresholds, gt_end - gt_begin))
    cdef int64_t[:, ::1] recalled = np.empty((num_thresholds, gt_end - gt_begin), np.int64)
    tally.capacity = gt_end - gt_begin  # each object makes one detection true
    tally.precision, tally.score = &held[0, 0, 0], &held[1, 0, 0]
    tally.recalled = &recalled[0, 0]
    with nogil:
        for a in range(AREAS):
            num_objects = count_objects(gt_images, counted, gt_begin, gt_end, &weights[0], a)
            if num_objects == 0:
                continue
            for m in range(limits.shape[0]):
                at = a * <int32_t>limits.shape[0] + m
                count_detections(&tally, images, ranks, found, matched, ignored, begin, end,
                                 &weights[0], a, limits[m], num_thresholds)
                for t in range(num_thresholds):
                    recall[at, t] = read_curve(
                        &tally, t, num_objects, recall_points, &precision[at, t, 0],
                        &scores[at, t, 0],
                    )
