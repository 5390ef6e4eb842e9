"""Reading a Pascal VOC annotation, and saying exactly where a broken one is broken."""

import io
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ...errors import DataError
from ...utils.text_file import read_file

_DIFFICULT = {"1", "true", "yes"}
_NOT_DIFFICULT = {"", "0", "false", "no", "none", "unspecified"}
_NATIVE_ENCODINGS = {"utf-8", "utf8", "utf-16", "iso-8859-1", "us-ascii"}


class VocObject(NamedTuple):
    """An ``<object>``: its class, its xmin, ymin, xmax, ymax and whether it is difficult."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class VocImage(NamedTuple):
    """What detection needs of an XML file; height and width are 0 where it does not say them."""

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
    data = read_file(path, "annotation")
    try:
        root = _parse(data)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise DataError(f"cannot read annotation '{path}': {error}") from None
    where = f"annotation '{path}'"
    if root.tag != "annotation":
        raise DataError(f"{where}: its root is <{root.tag[:100]}>, VOC's is <annotation>")
    height, width = (_side(root, f"size/{key}", where) for key in ("height", "width"))
    objects = [
        _read_object(element, f"{where}, object {number}")
        for number, element in enumerate(root.findall("object"), start=1)
    ]
    return VocImage(height, width, objects)


def _parse(data: bytes) -> Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    declared = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""", data)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if not declared or encoding in _NATIVE_ENCODINGS:
        return ElementTree.parse(io.BytesIO(data), parser).getroot()
    # The parser knows no encodings of several bytes, such as GBK, and text overrides what is
    # declared.
    return ElementTree.parse(io.StringIO(data.decode(encoding)), parser).getroot()


def _read_object(element: Element, where: str) -> VocObject:
    xmin, ymin, xmax, ymax = (
        _number(_text(element, key, where), key, where)
        for key in ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
    )
    word = (element.findtext("difficult") or "").strip()
    if word.lower() not in _NOT_DIFFICULT | _DIFFICULT:
        raise DataError(f"{where}: <difficult> must be 0 or 1, got '{word[:100]}'")
    difficult = word.lower() in _DIFFICULT
    return VocObject(_text(element, "name", where), (xmin, ymin, xmax, ymax), difficult)


def _side(root: Element, key: str, where: str) -> int:
    text = (root.findtext(key) or "").strip()
    value = _number(text, key, where) if text else 0.0
    if not 0 <= value < 2**31:
        raise DataError(f"{where}: <{key}> is {value:g}; it must be the image's, in pixels")
    return int(value)


def _number(text: str, key: str, where: str) -> float:
    try:
        if "_" not in text:  # Python would read 1_0 as 10
            return float(text)
    except ValueError:
        pass
    raise DataError(f"{where}: <{key}> must be a number, got '{text[:100]}'")


def _text(element: Element, key: str, where: str) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise DataError(f"{where}: <{key}> is missing or empty")
    return text
