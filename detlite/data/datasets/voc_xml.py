"""Reading a Pascal VOC annotation, and saying exactly where a broken one is broken."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ...errors import DataError


class VocObject(NamedTuple):
    """An ``<object>``: its class, its xmin, ymin, xmax, ymax and whether it is difficult."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class VocImage(NamedTuple):
    """What detection needs of an XML file."""

    height: int
    width: int
    objects: list[VocObject]


class _NoDoctype(ElementTree.TreeBuilder):
    # Entities that expand to gigabytes are defined in a document type; annotations have none.
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError("it has a DOCTYPE, which is refused because it can define entities")


def read_voc_xml(path: Path) -> VocImage:
    """Read the annotation of one image.

    Raises:
        DataError: The file is missing, not XML, or an element is missing or no number.
    """
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_NoDoctype())).getroot()
    except FileNotFoundError:
        raise DataError(f"there is no annotation file '{path}'") from None
    except (OSError, ElementTree.ParseError, DataError) as error:
        raise DataError(f"cannot read annotation '{path}': {error}") from None
    where = f"annotation '{path}'"
    height, width = (_number(root, f"size/{key}", where) for key in ("height", "width"))
    if not (1 <= height < 2**31 and 1 <= width < 2**31):
        raise DataError(
            f"{where}: <size> says height {height:g} and width {width:g}; it must be the image's"
        )
    objects = [
        _read_object(element, f"{where}, object {number}")
        for number, element in enumerate(root.findall("object"), start=1)
    ]
    return VocImage(int(height), int(width), objects)


def _read_object(element: Element, where: str) -> VocObject:
    xmin, ymin, xmax, ymax = (
        _number(element, f"bndbox/{key}", where) for key in ("xmin", "ymin", "xmax", "ymax")
    )
    # Tools also write words, such as `Unspecified` and `False`.
    flag = (element.findtext("difficult") or "").strip().lower()
    difficult = flag in ("true", "yes") or (flag.isdecimal() and int(flag[:9]) > 0)
    return VocObject(_text(element, "name", where), (xmin, ymin, xmax, ymax), difficult)


def _number(element: Element, key: str, where: str) -> float:
    text = _text(element, key, where)
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: <{key}> must be a number, got '{text}'") from None


def _text(element: Element, key: str, where: str) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise DataError(f"{where}: <{key}> is missing or empty")
    return text
