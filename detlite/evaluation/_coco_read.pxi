# From the dicts of COCO's JSON to arrays; included by _coco_match.pyx.

def read_entries(
    list entries, dict image_index, dict class_index, double[:, ::1] boxes, int32_t[::1] images,
    int32_t[::1] classes, double[::1] numbers, str number_key,
):
    """Fill arrays from dicts of ``image_id``, ``category_id``, ``bbox`` and one number.

    An image or a class that the index lacks is given the number -1.

    Args:
        entries: n dicts.
        image_index: The number of each image id.
        class_index: The number of each category id.
        boxes: (n, 4), filled.
        images: (n,), filled.
        classes: (n,), filled.
        numbers: (n,), filled with the values of ``number_key``.
        number_key: "score", or "area", whose absence is a NaN.

    Returns:
        The place of the first entry that cannot be read or holds a number that is not finite;
        -1 where there is none.
    """
    cdef Py_ssize_t i = 0, j
    cdef object entry, box, found
    cdef bint may_lack = number_key == "area"
    try:
        for i in range(len(entries)):
            entry = entries[i]
            found = image_index.get(entry["image_id"])
            images[i] = -1 if found is None else found
            found = class_index.get(entry["category_id"])
            classes[i] = -1 if found is None else found
            box = entry["bbox"]
            if type(box) is list:
                if len(<list>box) != 4:
                    return i
                for j in range(4):
                    boxes[i, j] = (<list>box)[j]
            else:
                if len(box) != 4:
                    return i
                for j in range(4):
                    boxes[i, j] = box[j]
            if not (
                isfinite(boxes[i, 0]) and isfinite(boxes[i, 1])
                and isfinite(boxes[i, 2]) and isfinite(boxes[i, 3])
            ):
                return i
            found = entry.get(number_key) if may_lack else entry[number_key]
            if found is None and may_lack:
                numbers[i] = NAN
            else:
                numbers[i] = found
                if not isfinite(numbers[i]):
                    return i
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError):
        return i
    return -1
