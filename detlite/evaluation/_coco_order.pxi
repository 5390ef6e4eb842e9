# Sorting by class and image, and by score; included by _coco_match.pyx.

cdef enum:
    SHORT_RUN = 16  # up to here insertion sort beats merging


cdef struct Key:
    double score
    int32_t place


def group_by_class(
    const int32_t[::1] images, const int32_t[::1] classes, int num_images, int num_classes
):
    """Sort by class, within it by image, within that not at all.

    Returns:
        The order (n,) int32, and where each class begins in it, (K + 1,) int64.
    """
    first, order = (np.empty(images.shape[0], np.int32) for _ in range(2))
    offsets = np.zeros(num_classes + 1, np.int64)
    cdef int32_t[::1] by_image = first, by_both = order
    cdef int64_t[::1] image_places = np.zeros(num_images + 1, np.int64)
    cdef int64_t[::1] class_places = np.zeros(num_classes + 1, np.int64)
    cdef int64_t[::1] class_begins = offsets
    cdef Py_ssize_t i
    cdef int32_t which
    with nogil:
        count(images, image_places)
        count(classes, class_places)
        class_begins[:] = class_places
        for i in range(images.shape[0]):
            which = images[i]
            by_image[image_places[which]] = <int32_t>i
            image_places[which] += 1
        for i in range(images.shape[0]):
            which = classes[by_image[i]]
            by_both[class_places[which]] = by_image[i]
            class_places[which] += 1
    return order, offsets


cdef void count(const int32_t[::1] values, int64_t[::1] begins) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(values.shape[0]):
        begins[values[i] + 1] += 1
    for i in range(1, begins.shape[0]):
        begins[i] += begins[i - 1]


cdef void sort_falling(Key* keys, Key* spare, int64_t n) noexcept nogil:
    """Sort by falling score; equal scores keep their order, as in numpy's merge sort."""
    cdef int64_t i, j, middle
    cdef Key moved
    if n <= SHORT_RUN:
        for i in range(1, n):
            moved = keys[i]
            j = i
            while j > 0 and keys[j - 1].score < moved.score:
                keys[j] = keys[j - 1]
                j -= 1
            keys[j] = moved
        return
    middle = n // 2
    sort_falling(keys, spare, middle)
    sort_falling(keys + middle, spare, n - middle)
    if keys[middle - 1].score >= keys[middle].score:
        return
    for i in range(middle):
        spare[i] = keys[i]
    i, j, n = 0, middle, n
    cdef int64_t to = 0
    while i < middle:
        if j < n and keys[j].score > spare[i].score:
            keys[to] = keys[j]
            j += 1
        else:
            keys[to] = spare[i]
            i += 1
        to += 1
