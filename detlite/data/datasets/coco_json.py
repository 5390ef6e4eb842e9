"""Reading a COCO instances file, and saying exactly where a broken one is broken."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from ...errors import DataError
from ...evaluation.coco_masks import box_of_segmentation
from ...utils.text_file import parse_json, read_file, shown

logger = logging.getLogger(__name__)

Integer = int | Annotated[float, msgspec.Meta(multiple_of=1)]
"""An int; some tools write 17.0 for 17."""
Size = (
    Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    | Annotated[float, msgspec.Meta(ge=0, lt=2**31, multiple_of=1)]
    | None
)
"""Pixels; 0 and None where the file does not say them."""


class Image(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: Integer | str
    file_name: str | None = None
    coco_url: str | None = None
    height: Size = None
    width: Size = None


class Annotation(msgspec.Struct, gc=False):
    """An entry of ``annotations``, without its polygons."""

    image_id: Integer | str
    category_id: Integer | str
    bbox: tuple[float, float, float, float]
    id: Integer | str | None = None
    area: float | None = None
    iscrowd: Integer | bool | None = None


class _MaskAnnotation(msgspec.Struct, gc=False):
    """An entry of ``annotations`` that may have a mask and no box."""

    image_id: Integer | str
    category_id: Integer | str
    bbox: list[float] | None = None
    id: Integer | str | None = None
    area: float | None = None
    iscrowd: Integer | bool | None = None
    segmentation: Any = None


class _RawMaskAnnotation(_MaskAnnotation, gc=False):
    """The same, whose mask is not decoded yet: as Python's floats it takes tenfold memory."""

    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class Category(msgspec.Struct, gc=False):
    """An entry of ``categories``."""

    id: Integer | str
    name: str
    supercategory: Any = None


class CocoFile(msgspec.Struct, gc=False):
    """What detection needs of a COCO instances file; one for prediction has no annotations."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] | None = None


class _MaskFile(msgspec.Struct, gc=False):
    images: list[Image]
    categories: list[Category]
    annotations: list[_MaskAnnotation] | None = None


class _RawMaskFile(msgspec.Struct, gc=False):
    images: list[Image]
    categories: list[Category]
    annotations: list[_RawMaskAnnotation] | None = None


_DECODER = msgspec.json.Decoder(CocoFile)
_MASK_DECODER = msgspec.json.Decoder(_RawMaskFile)


def read_coco_json(path: str) -> CocoFile:
    """Read and check a COCO instances file.

    Boxes of annotations that have none are made from their polygons or masks. Names of categories
    may stand twice, because some of them may not be classes.

    Raises:
        DataError: It is missing or broken, or its entries contradict each other.
    """
    content = _decode(path)
    _check_unique(path, "image id", plain_ids(image.id for image in content.images))
    _check_unique(path, "category id", plain_ids(c.id for c in content.categories))
    _check_references(path, content, "image_id", {image.id for image in content.images})
    _check_references(path, content, "category_id", {c.id for c in content.categories})
    return content


def plain_ids(ids: Iterable[int | float | str]) -> list[Any]:
    """Ids as ints; all of them as texts where one of them is a text."""
    whole = [i if isinstance(i, str) else int(i) for i in ids]
    return [str(i) for i in whole] if any(isinstance(i, str) for i in whole) else whole


def check_names_unique(path: str, categories: Sequence[Category]) -> None:
    """Raise a DataError if two of these categories have one name."""
    _check_unique(path, "category name", [category.name for category in categories])


def _decode(path: str) -> CocoFile:
    data = read_file(path, "annotations")
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return _with_boxes(path, _MASK_DECODER.decode(data))
    except (msgspec.DecodeError, RecursionError):
        document = parse_json(data, path, "annotations")
    try:
        return _with_boxes(path, msgspec.convert(document, _MaskFile))
    except msgspec.ValidationError as error:
        raise _mistake(path, document, error) from None
    except UnicodeEncodeError as error:
        raise DataError(
            f"annotations '{path}': a key holds {error.object!r}, which is no text"
        ) from None


def _with_boxes(path: str, content: _MaskFile | _RawMaskFile) -> CocoFile:
    """The file with the boxes of all annotations."""
    made: list[Annotation] = []
    num_masks = 0
    for number, entry in enumerate(content.annotations or []):
        box: Sequence[float]
        if entry.bbox:
            box = entry.bbox
        else:
            box = _box_of_mask(path, number, entry)
            num_masks += 1
        if len(box) != 4:
            raise _wrong_box(path, _where("annotations", number, entry.id), list(box))
        x, y, w, h = box
        made.append(
            Annotation(
                entry.image_id, entry.category_id, (x, y, w, h), entry.id, entry.area, entry.iscrowd
            )
        )
    if num_masks:
        logger.info(
            "'%s': %d of %d annotations have no `bbox`; their boxes are those of their polygons or "
            "masks",
            path,
            num_masks,
            len(made),
        )
    annotations = None if content.annotations is None else made
    return CocoFile(content.images, content.categories, annotations)


def _box_of_mask(path: str, number: int, entry: Any) -> Sequence[float]:
    mask = entry.segmentation
    try:
        mask = msgspec.json.decode(mask) if isinstance(mask, msgspec.Raw) else mask
        return box_of_segmentation(mask)
    except ValueError as error:
        if isinstance(error, msgspec.DecodeError) and isinstance(mask, msgspec.Raw):
            raise  # a NaN; the slow parser knows it
        reason = f"`segmentation` makes none: {error}, got {shown(mask)}" if mask else ""
    raise DataError(
        f"annotations '{path}', {_where('annotations', number, entry.id)}: there is no `bbox`, and "
        + (reason or "no `segmentation` that a box could be made from")
    )


def _mistake(path: str, document: Any, error: msgspec.ValidationError) -> DataError:
    if not isinstance(document, dict) or not {"images", "categories"} <= {*document}:
        keys = f"a {type(document).__name__}"
        if isinstance(document, dict):
            keys = shown(", ".join(document))[1:-1] or "nothing"
        return DataError(
            f"'{path}' is not a COCO instances file: it needs the lists images, annotations and "
            f"categories, it has {keys}"
        )
    place = re.search(r"\$\.(images|annotations|categories)\[(\d+)\]\.?(\w*)", str(error))
    if place is None:
        return DataError(f"annotations '{path}': {error}")
    section, number, key = place[1], int(place[2]), place[3]
    entry = document[section][number]
    where = _where(section, number, entry.get("id") if isinstance(entry, dict) else None)
    reason = str(error).partition(" - at ")[0]
    if key == "bbox":
        return _wrong_box(path, where, entry["bbox"])
    value = f", got {shown(entry[key])}" if key else ""
    return DataError(f"annotations '{path}', {where}: {f'`{key}`: ' if key else ''}{reason}{value}")


def _wrong_box(path: str, where: str, box: Any) -> DataError:
    return DataError(
        f"annotations '{path}', {where}: `bbox` must be four numbers x, y, width, height, "
        f"got {shown(box)}"
    )


def _where(section: str, number: int, entry_id: Any) -> str:
    return f"entry {number} of `{section}`" + (
        "" if entry_id is None else f" (id {shown(entry_id, 40)})"
    )


def _check_unique(path: str, what: str, values: Sequence[Any]) -> None:
    if len({*values}) == len(values):
        return
    twice = [value for value, count in Counter(values).items() if count > 1]
    raise DataError(
        f"annotations '{path}': {_listing(twice)} {'is' if len(twice) == 1 else 'are'} "
        f"the {what} of more than one entry; each must be unique"
    )


def _check_references(path: str, content: CocoFile, key: str, known: set[Any]) -> None:
    annotations = content.annotations or []
    lost = [(n, a) for n, a in enumerate(annotations) if getattr(a, key) not in known]
    if not lost:
        return
    section = "images" if key == "image_id" else "categories"
    values = dict.fromkeys(getattr(annotation, key) for _, annotation in lost)
    ids = [n if annotation.id is None else annotation.id for n, annotation in lost]
    alike = {str(value) for value in values} & {str(value) for value in known}
    hint = "; one is a text and the other a number, which do not match" if alike else ""
    raise DataError(
        f"'{path}': the {key} of {len(lost)} of {len(annotations)} annotations is not "
        f"among `{section}`: {_listing(list(values))} (annotations {_listing(ids)}){hint}"
    )


def _listing(values: Sequence[Any], limit: int = 5) -> str:
    shown_values = ", ".join(_short(repr(value)) for value in values[:limit])
    return shown_values + (f" and {len(values) - limit} more" if len(values) > limit else "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
