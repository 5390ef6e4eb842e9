"""Broken and hostile annotation files of every format: each is read, or refused with a UserError.

    python tests/soak/mutated_annotations.py --count 5000 --seed 0

COCO files for training and for evaluation, results, VOC XML and lists, lists of ImageFolder. None
may end in a traceback, take more than 5 seconds or more than 1 GB; what is read has finite boxes
that are not inverted, and what is refused is said in a short message that can be printed.
"""

import copy
import json
import pathlib
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from limits import run_command_line, run_within_limits

from detlite import UserError
from detlite.data.datasets import CocoDetection, ImageFolder, VocDetection
from detlite.evaluation import coco_arrays, evaluate_boxes
from detlite.evaluation.coco_files import read_ground_truth, read_results

SECONDS, BYTES = 5.0, 2**30
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
PIECES = [
    *(b"9" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b"<a>" * 2000, b"\xff", b"\0", b"NaN"),
    *(b"-", b"\\ud800", b"<!DOCTYPE a>", b"&lt;", b"1e999", b"\xef\xbb\xbf"),
]


class Mutation(NamedTuple):
    """A format, and the content of its file."""

    kind: str
    data: bytes


def mutations(seed: int, count: int) -> Iterator[Mutation]:
    """``count`` of them; the same for the same arguments."""
    makers: list[tuple[str, Callable[[random.Random], bytes]]] = [
        *[("coco", mutated_coco)] * 3,
        ("ground truth", mutated_coco),
        ("results", mutated_results),
        *[("voc", mutated_xml)] * 2,
        ("voc list", lambda rng: mutated_bytes(rng, VOC_LIST)),
        ("list", lambda rng: mutated_bytes(rng, rng.choice(LISTS))),
    ]
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        kind, make = rng.choice(makers)
        yield Mutation(kind, make(rng))


def mutated_coco(rng: random.Random) -> bytes:
    """Values replaced, keys gone, entries twice; sometimes another encoding or broken bytes."""
    document = copy.deepcopy(COCO)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        change(rng, document)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.9:
        data = text.encode("utf-8", "surrogatepass")
    else:
        data = text.encode(rng.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig"]), "replace")
    return mutated_bytes(rng, data) if rng.random() < 0.35 else data


def mutated_results(rng: random.Random) -> bytes:
    """A list of detections with a changed value, or broken bytes."""
    document = copy.deepcopy(RESULTS)
    change(rng, document)
    data = json.dumps(document).encode()
    return mutated_bytes(rng, data) if rng.random() < 0.4 else data


def mutated_xml(rng: random.Random) -> bytes:
    """Another declared encoding, another text of an element, or broken bytes."""
    text = XML.replace("utf-8", rng.choice(["utf-8"] * 6 + ENCODINGS))
    if rng.random() < 0.5:
        spot = rng.choice(list(re.finditer(r">([^<]+)<", text)))
        text = text[: spot.start(1)] + rng.choice(WORDS) + text[spot.end(1) :]
    data = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, data) if rng.random() < 0.6 else data


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


def prepare(folder: pathlib.Path) -> None:
    """Images, and the files beside the one that is mutated."""
    for name in IMAGES:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(path)
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / "tree" / name).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (60, 40)).save(folder / f"tree/JPEGImages/{name}.png")
        (folder / f"tree/Annotations/{name}.xml").write_text(XML)
    (folder / "tree/ImageSets/Main/t.txt").write_text("a\nb\n")


def read(mutation: Mutation, folder: pathlib.Path) -> None:
    """Read the file in its format and use what it holds."""
    path, images = folder / "file", str(folder / "images")
    if mutation.kind == "voc":
        path = folder / "tree/Annotations/a.xml"
    elif mutation.kind == "voc list":
        path = folder / "tree/ImageSets/Main/t.txt"
    path.write_bytes(mutation.data)
    if mutation.kind == "ground truth":
        evaluate_boxes(coco_arrays(read_ground_truth(path), []))
    elif mutation.kind == "results":
        truth = {**COCO, "annotations": COCO["annotations"][:2]}
        evaluate_boxes(coco_arrays(truth, read_results(path)))
    elif mutation.kind == "list":
        ImageFolder(folder=images, list_file=str(path))
    else:
        dataset = (
            CocoDetection(json=str(path), images=images)
            if mutation.kind == "coco"
            else VocDetection(root=str(folder / "tree"), split="t")
        )
        for i in range(len(dataset)):
            boxes = dataset[i]["boxes"].numpy()
            assert np.isfinite(boxes).all(), boxes
            assert (boxes[:, 2:] > boxes[:, :2]).all(), boxes


def problem_of(mutation: Mutation, folder: pathlib.Path) -> str:
    """What is wrong with how a file is read; "" if nothing is."""
    try:
        read(mutation, folder)
    except UserError as error:
        text = str(error)
        if len(text) > 1500 or text.count("\n") > 3:
            return f"a message of {len(text)} characters, {text.count(chr(10))} line breaks"
        if not text.replace("\n", "").replace("\t", "").isprintable():
            return f"a message that cannot be printed: {text!r}"
    return ""


def failures(count: int, seed: int) -> list[str]:
    """Read ``count`` mutations; one line for each that went wrong."""
    torch.set_num_threads(1)
    found = []
    for number, mutation in enumerate(mutations(seed, count)):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            prepare(folder)
            problem = run_within_limits(partial(problem_of, mutation, folder), SECONDS, BYTES)
        if problem:
            found.append(f"{number} {mutation.kind} {mutation.data[:200]!r}: {problem}")
    return found


if __name__ == "__main__":
    run_command_line(failures, "annotation files", 5000)
