"""Annotation files of every format with one or more mistakes; see mutated_annotations.py."""

import copy
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

IMAGES = ("a.png", "sub/b.png", "c d.png")
COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 2, "file_name": "sub/b.png", "height": 40, "width": 60},
        {"id": 3, "file_name": "c d.png", "coco_url": "http://x/y/c%20d.png", "height": 40},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600,
         "iscrowd": 0, "segmentation": [[1, 2, 31, 2, 31, 22]]},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5.5, 2, 10, 20.25],
         "segmentation": {"size": [40, 60], "counts": [100, 20, 2280]}},
        {"id": 3, "image_id": 3, "category_id": 2,
         "segmentation": {"size": [3, 3], "counts": "090"}},
    ],
    "categories": [
        {"id": 0, "name": "root", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "root"},
        {"id": 2, "name": "dog", "supercategory": "root"},
    ],
}  # fmt: skip
RESULTS = [
    {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
    {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.6},
]
OBJECT = (
    "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>"
    "<xmax>20</xmax><ymax>30</ymax></bndbox></object>"
)
XML = (
    '<?xml version="1.0" encoding="utf-8"?><annotation><filename>a.png</filename><size><width>60'
    "</width><height>40</height><depth>3</depth></size>"
    f"{OBJECT.format('cat')}{OBJECT.format('dog')}</annotation>"
)
VOC_LIST = b"a 1\nb.png -1\n"
LISTS = [b"a.png 0\nsub/b.png 1\nc d.png 1\n", b"a.png\tx\nsub/b.png\ty\n", b"sub/b.png\n"]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 17.0, 10**25, -(10**25), 2**31, 2**63, 2**64, 10**400),
    *(1e300, 1e-320, float("nan"), float("inf"), "", "x", "1", "1e5", "\ud800", "\udce9", "a\0"),
    *("a\n", "x" * 3000, "../../etc/passwd", "/dev/zero", "a\\b.png", "\U0001f98a", [], {}, [[]]),
    *([1], [1, 2, 3, 4], ["a"], [[1, 2, 3, float("nan")]], {"size": [0, 0], "counts": "0"}),
    {"size": [10**9, 10**9], "counts": [10**18]},
    {"size": [40, 60], "counts": "P" * 100},
]
ENCODINGS = ["gbk", "utf-16", "latin-1", "idna", "base64", "rot13", "zip", "utf-7", "undefined"]
WORDS = [
    *("", "nan", "inf", "-1", "1e400", "9" * 400, "9" * 5000, "x", "&#xD800;", "&#0;", "true", "2"),
    *("Unspecified", "1_0", " 5 ", "\u0665", "x" * 3000, "&#x202e;", "0"),
]
FORMS = ["folder", "pipe", "link to itself", "link to /dev/zero", "link to nothing", "link"]
XML_PIECES = [
    *("<!-- 7 -->", "<![CDATA[7]]>", "<?x y?>", "&lol;", "&amp;", "&#55;", "\r\n", "<part/>"),
    *("<bndbox><xmin>0</xmin></bndbox>", "<part><name>leg</name><bndbox/></part>", "\t", "\xa0"),
]
DOCTYPES = [
    '<!DOCTYPE a SYSTEM "file:///dev/zero">',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>",
]
LINES = [
    *("a.png 0", "a.png\t0", "  a.png   0  ", '"a.png" 0', "a.png,0", "./a.png 0", "a.png", "# a"),
    *("../images/a.png 0", "/etc/passwd 0", "sub/../a.png 1", "c d.png\tb c", "c d.png 1", "sub"),
    *("sub\\b.png 1", "A.PNG 0", "a.png -1", "a.png 1.0", "a.png \u0661", "a.png\t", "\ta.png", ""),
    *("sub/b.png", "a.png \xb2", "a.png\t\t0", "a.png 00", "a.png 1e3", "a.png\x0c0", "a.png 0 0"),
]  # fmt: skip
PIECES = [
    *(b"9" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b"<a>" * 2000, b"\xff", b"\0", b"NaN"),
    *(b"-", b"\\ud800", b"<!DOCTYPE a>", b"&lt;", b"1e999", b"\xef\xbb\xbf"),
]


class Mutation(NamedTuple):
    """A format, and the content of its file."""

    kind: str
    data: bytes
    form: str = "file"


def mutations(seed: int, count: int) -> Iterator[Mutation]:
    """``count`` of them; the same for the same arguments."""
    makers: list[tuple[str, Callable[[random.Random], bytes]]] = [
        *[("coco", mutated_coco)] * 3,
        ("ground truth", mutated_coco),
        ("results", mutated_results),
        *[("voc", mutated_xml)] * 2,
        ("voc list", lambda rng: mutated_bytes(rng, VOC_LIST)),
        ("list", mutated_list),
    ]
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        kind, make = rng.choice(makers)
        form = rng.choice(FORMS) if rng.random() < 0.01 else "file"
        yield Mutation(kind, make(rng), form)


def mutated_coco(rng: random.Random) -> bytes:
    """Values replaced, keys gone, entries twice; sometimes another encoding or broken bytes."""
    document = copy.deepcopy(COCO)
    if rng.random() < 0.3:
        rng.choice(SEMANTIC)(rng, document)
        if rng.random() < 0.5:
            return encoded(rng, json.dumps(document))
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        change(rng, document)
    data = encoded(rng, json.dumps(document, ensure_ascii=rng.random() < 0.7))
    return mutated_bytes(rng, data) if rng.random() < 0.35 else data


def encoded(rng: random.Random, text: str) -> bytes:
    """Mostly UTF-8; or another encoding, a byte-order mark, other line ends, compressed."""
    draw = rng.random()
    if draw < 0.85:
        return text.encode("utf-8", "surrogatepass")
    if draw < 0.95:
        return text.encode(rng.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig"]), "replace")
    data = text.replace(", ", ",\r\n").encode("utf-8", "surrogatepass")
    return rng.choice([data, gzip.compress(data), b"", data + b"\0" * 9, data[: len(data) // 2]])


def corners(rng: random.Random, document: Any) -> None:
    """Boxes in another form, beyond the image, or with sides swapped."""
    for entry in document["annotations"][:2]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = rng.choice(
            [[y, x, h, w], [x, y, x + w, y + h], [x - 9, y - 9, w * 9, h * 9], [x, y, -w, h],
             [x / 60, y / 40, w / 60, h / 40], [x + 60, y, w, h], [str(v) for v in (x, y, w, h)],
             [x, y, w, 1e-9], [int(v) for v in (x, y, w, h)], [[x, y], [w, h]]]
        )  # fmt: skip


def other_ids(rng: random.Random, document: Any) -> None:
    """Ids of another type or order everywhere, or of some only."""
    make = rng.choice([str, float, lambda i: -i, lambda i: i + 2**63, lambda i: f"{i:03d}", bool])
    key, section = rng.choice([("image_id", "images"), ("category_id", "categories")])
    some = rng.random() < 0.3
    for entry in document[section]:
        entry["id"] = make(entry["id"])
    for entry in document["annotations"][int(some) :]:
        entry[key] = make(entry[key])
    rng.shuffle(document[section])


def other_keys(rng: random.Random, document: Any) -> None:
    """Keys as other tools spell them, or in another case."""
    spell = rng.choice([str.upper, str.title, lambda key: key.replace("_", ""), lambda k: f" {k}"])
    for section in rng.sample(["images", "annotations", "categories"], rng.choice([1, 3])):
        document[section] = [{spell(k): v for k, v in e.items()} for e in document[section]]


def twice(rng: random.Random, document: Any) -> None:
    """An entry again, as it is or with another id."""
    section = rng.choice(["images", "annotations", "categories"])
    entry = dict(rng.choice(document[section]))
    entry["id"] = rng.choice([entry["id"], 77])
    document[section].insert(rng.randrange(len(document[section]) + 1), entry)


def as_mapping(rng: random.Random, document: Any) -> None:
    """A section as a mapping by ids, or the document within another."""
    section = rng.choice(["images", "annotations", "categories"])
    by_id = {str(entry["id"]): entry for entry in document[section]}
    document[section] = rng.choice([by_id, [document[section]], None, by_id | {"1": None}])


def mixed_flags(rng: random.Random, document: Any) -> None:
    """Crowds and areas of any kind."""
    for entry in document["annotations"]:
        entry["iscrowd"] = rng.choice([0, 1, True, False, None, 1.0, "0", 2, -1])
        entry["area"] = rng.choice([0, -5, None, 1e400, float("nan"), 600, 10**400, "600"])


SEMANTIC = [corners, other_ids, other_keys, twice, as_mapping, mixed_flags]


def mutated_list(rng: random.Random) -> bytes:
    """Lines as people write them, or broken bytes."""
    if rng.random() < 0.4:
        return mutated_bytes(rng, rng.choice(LISTS))
    lines = rng.choices(LINES, k=rng.choice([1, 2, 4]))
    text = rng.choice(["\n", "\n", "\r\n", "\r", "\n\n"]).join(lines)
    return text.encode(rng.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1"]), "replace")


def mutated_results(rng: random.Random) -> bytes:
    """A list of detections with a changed value, or broken bytes."""
    document = copy.deepcopy(RESULTS)
    for entry in document:
        entry["bbox"] = rng.choice([[1, 2, 30, 20], [5.5, 2, 10, 20], [2, 2, 30, 21]])
    for _ in range(rng.choice([0, 1, 1, 2])):
        change(rng, document)
    data = json.dumps(document).encode()
    return mutated_bytes(rng, data) if rng.random() < 0.4 else data


def mutated_xml(rng: random.Random) -> bytes:
    """Another declared encoding, text or structure, an odd part of XML, or broken bytes."""
    text = XML.replace("utf-8", rng.choice(["utf-8"] * 6 + ENCODINGS))
    if rng.random() < 0.5:
        spot = rng.choice(list(re.finditer(r">([^<]+)<", text)))
        text = text[: spot.start(1)] + rng.choice(WORDS) + text[spot.end(1) :]
    draw, spot = rng.random(), rng.choice(list(re.finditer(r"<(\w+)>[^<]*</\1>", text)))
    if draw < 0.25:
        place = rng.randrange(spot.start(), spot.end() + 1)
        text = text[:place] + rng.choice(XML_PIECES) + text[place:]
    elif draw < 0.3:
        text = text.replace("<annotation>", rng.choice(DOCTYPES) + "<annotation>&i;")
    elif draw < 0.35:
        text = text.replace("<annotation>", '<annotation xmlns="http://x/y">')
    elif draw < 0.45:
        text = text[: spot.start()] + spot[0] * rng.choice([0, 2]) + text[spot.end() :]
    elif draw < 0.5:
        text = text.replace(spot[1], rng.choice([spot[1].upper(), f"a:{spot[1]}", "object"]))
    data = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, data) if rng.random() < 0.4 else data


def change(rng: random.Random, document: Any) -> None:
    """Change one place of a document."""
    places = [*places_in(document)]
    if not places:
        return
    parent, key = rng.choice(places)
    draw = rng.random()
    if draw < 0.6:
        parent[key] = copy.deepcopy(rng.choice(VALUES))
    elif draw < 0.75:
        del parent[key]
    elif draw < 0.85 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif isinstance(parent, dict):
        other = rng.choice(["id", "bbox", "name", "file_name", "image_id", "\ud800"])
        parent[other] = copy.deepcopy(parent[key])


def places_in(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every parent and key below a document."""
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in list(keys):
            yield document, key
            yield from places_in(document[key])


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, gone, twice, or foreign ones among them; or the file ends too early."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not changed:
            break
        i, draw = rng.randrange(len(changed)), rng.random()
        if draw < 0.4:
            changed[i] = rng.randrange(256)
        elif draw < 0.6:
            del changed[i : i + rng.choice([1, 1, 5, 50, 500])]
        elif draw < 0.75:
            changed[i:i] = changed[i : i + rng.choice([1, 10, 100])]
        elif draw < 0.85:
            changed[i:i] = rng.choice(PIECES)
        else:
            del changed[i:]
    return bytes(changed)
