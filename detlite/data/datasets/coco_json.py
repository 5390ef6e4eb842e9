"""Reading a COCO instances file, and saying exactly where a broken one is broken."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ...errors import DataError

Integer = int | Annotated[float, msgspec.Meta(multiple_of=1)]
"""An int; some tools write 17.0 for 17."""
Size = Annotated[int, msgspec.Meta(ge=1)] | Annotated[float, msgspec.Meta(ge=1, multiple_of=1)]


class Image(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: Integer | str
    file_name: str
    height: Size
    width: Size


class Annotation(msgspec.Struct, gc=False):
    """An entry of ``annotations``, without its polygons."""

    image_id: Integer | str
    category_id: Integer
    bbox: tuple[float, float, float, float]
    id: Integer | str | None = None
    area: float | None = None
    iscrowd: Integer | bool | None = None


class Category(msgspec.Struct, gc=False):
    """An entry of ``categories``."""

    id: Integer
    name: str


class CocoFile(msgspec.Struct, gc=False):
    """What detection needs of a COCO instances file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


_DECODER = msgspec.json.Decoder(CocoFile)


def read_coco_json(path: str) -> CocoFile:
    """Read and check a COCO instances file.

    Raises:
        DataError: It is missing or broken, or its entries contradict each other.
    """
    content = _decode(path)
    _check_unique(path, "image id", [image.id for image in content.images])
    _check_unique(path, "category id", [category.id for category in content.categories])
    _check_unique(path, "category name", [category.name for category in content.categories])
    _check_references(path, content, "image_id", {image.id for image in content.images})
    _check_references(path, content, "category_id", {c.id for c in content.categories})
    return content


def _decode(path: str) -> CocoFile:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the annotations '{path}': {error.strerror}. "
            "Relative paths lie under $DETLITE_DATASETS (datasets/ if it is not set)"
        ) from None
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError:
        pass
    # The standard library is slow, but knows byte-order marks and NaN, and tells the broken line.
    try:
        document = json.loads(data)
    except ValueError as error:
        raise DataError(f"annotations '{path}' are not valid JSON: {error}") from None
    try:
        return msgspec.convert(document, CocoFile)
    except msgspec.ValidationError as error:
        raise _mistake(path, document, error) from None


def _mistake(path: str, document: Any, error: msgspec.ValidationError) -> DataError:
    if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= {*document}:
        keys = ", ".join(document) if isinstance(document, dict) else type(document).__name__
        return DataError(
            f"'{path}' is not a COCO instances file: it needs the lists images, annotations and "
            f"categories, it has {keys or 'nothing'}"
        )
    place = re.search(r"\$\.(images|annotations|categories)\[(\d+)\]\.?(\w*)", str(error))
    if place is None:
        return DataError(f"annotations '{path}': {error}")
    section, number, key = place[1], int(place[2]), place[3]
    entry = document[section][number]
    where = f"entry {number} of `{section}`"
    if isinstance(entry, dict) and "id" in entry:
        where += f" (id {entry['id']})"
    reason = str(error).partition(" - at ")[0]
    if key == "bbox":
        return DataError(
            f"annotations '{path}', {where}: `bbox` must be four numbers x, y, width, height, "
            f"got {json.dumps(entry['bbox'])}"
        )
    value = f", got {json.dumps(entry[key])}" if key else ""
    return DataError(f"annotations '{path}', {where}: {f'`{key}`: ' if key else ''}{reason}{value}")


def _check_unique(path: str, what: str, values: Sequence[Any]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise DataError(
            f"annotations '{path}': {_listing(twice)} {'is' if len(twice) == 1 else 'are'} "
            f"the {what} of more than one entry; each must be unique"
        )


def _check_references(path: str, content: CocoFile, key: str, known: set[Any]) -> None:
    lost = [(n, a) for n, a in enumerate(content.annotations) if getattr(a, key) not in known]
    if not lost:
        return
    section = "images" if key == "image_id" else "categories"
    values = dict.fromkeys(getattr(annotation, key) for _, annotation in lost)
    ids = [n if annotation.id is None else annotation.id for n, annotation in lost]
    raise DataError(
        f"'{path}': the {key} of {len(lost)} of {len(content.annotations)} annotations is not "
        f"among `{section}`: {_listing(list(values))} (annotations {_listing(ids)})"
    )


def _listing(values: Sequence[Any], limit: int = 5) -> str:
    shown = ", ".join(repr(value) for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
