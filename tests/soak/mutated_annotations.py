"""Broken and hostile annotation files of every format: each is read, or refused with a UserError.

    python tests/soak/mutated_annotations.py --count 5000 --seed 0

COCO files for training and for evaluation, results, VOC XML and lists, lists of ImageFolder. None
may end in a traceback, take more than 5 seconds or more than 1 GB. What is read must be what
second_readers.py and pycocotools read; what is refused is said in a short message that can be
printed. Files may also be folders, pipes, devices or links.
"""

import copy
import json
import os
import pathlib
import sys
import tempfile
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import second_readers
from annotation_mutations import COCO, IMAGES, RESULTS, XML, Mutation, mutations
from limits import run_command_line, run_within_limits

from detlite import UserError
from detlite.data.datasets import CocoDetection, ImageFolder, VocDetection
from detlite.evaluation import coco_arrays, evaluate_boxes
from detlite.evaluation.coco_files import read_ground_truth, read_results

SECONDS, BYTES = 5.0, 2**30
GROUP = 20
SIZE = (40, 60)


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
    write(mutation, path)
    if mutation.kind == "ground truth":
        found = evaluate_boxes(coco_arrays(read_ground_truth(path), RESULTS))
        compare_numbers(found.metrics, parsed(mutation.data), RESULTS)
    elif mutation.kind == "results":
        truth = {**COCO, "annotations": COCO["annotations"][:2]}
        found = evaluate_boxes(coco_arrays(truth, read_results(path)))
        compare_numbers(found.metrics, copy.deepcopy(truth), parsed(mutation.data))
    elif mutation.kind == "list":
        listed = ImageFolder(folder=images, list_file=str(path))
        entries = second_readers.list_entries(mutation.data)
        assert len(listed) == len(entries), f"{len(listed)} images, listed are {entries}"
        for i, (name, label) in enumerate(entries):
            assert os.path.samefile(
                listed.file_name(i), folder / "images" / name.replace("\\", "/")
            )
            number = int(listed.classes[i])
            expected = {label} if label is not None else {name.split("/")[-2]}
            expected |= {str(int(text)) for text in expected if text.isdecimal()}
            assert listed.class_names[number] in expected, f"{number}, not {expected}"
    elif mutation.kind == "coco":
        compare_boxes(
            CocoDetection(json=str(path), images=images),
            second_readers.coco_boxes(mutation.data, SIZE),
        )
    else:
        dataset = VocDetection(root=str(folder / "tree"), split="t")
        first = second_readers.voc_boxes(mutation.data, SIZE) if mutation.kind == "voc" else None
        other = second_readers.voc_boxes(XML.encode(), SIZE)
        compare_boxes(dataset, None if first is None or other is None else [first, other])


def write(mutation: Mutation, path: pathlib.Path) -> None:
    """Put the mutation at a path."""
    path.unlink(missing_ok=True)
    targets = {"itself": path, "/dev/zero": "/dev/zero", "nothing": path.with_name("nothing")}
    if mutation.form == "folder":
        path.mkdir()
    elif mutation.form == "pipe":
        os.mkfifo(path)
    elif mutation.form.startswith("link to"):
        path.symlink_to(targets[mutation.form.removeprefix("link to ")])
    else:
        target = path.with_suffix(".data") if mutation.form == "link" else path
        target.write_bytes(mutation.data)
        if target != path:
            path.symlink_to(target)


def compare_boxes(dataset: Any, expected: list[second_readers.Boxes] | None) -> None:
    """Assert that the boxes of every image are those that the second reader finds."""
    assert expected is None or len(expected) == len(dataset), f"{len(dataset)} images"
    for i in range(len(dataset)):
        sample = dataset[i]
        boxes = sample["boxes"].numpy()
        assert np.isfinite(boxes).all(), boxes
        assert (boxes[:, 2:] > boxes[:, :2]).all(), boxes
        if expected is None:
            continue
        names = [dataset.class_names[k] for k in sample["classes"].tolist()]
        assert names == [name for name, _ in expected[i]], f"{names}, expected {expected[i]}"
        for box, (_, right) in zip(boxes, expected[i], strict=True):
            assert right is None or np.allclose(box, right, atol=1e-4), f"{box}, not {right}"


def parsed(data: bytes) -> Any:
    """The document; None where Python's parser refuses it, as where a skipped key is no text."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def compare_numbers(metrics: Any, truth: Any, results: Any) -> None:
    """Assert that the twelve numbers are those of pycocotools."""
    if truth is None or results is None:
        return
    expected = second_readers.pycocotools_numbers(truth, copy.deepcopy(results))
    if expected is not None:
        found = [*metrics.summary.values()]
        assert np.allclose(found, expected, equal_nan=True), f"{found}, expected {expected}"


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
    numbered = enumerate(mutations(seed, count))
    while group := list(islice(numbered, GROUP)):
        # Most groups are right as a whole; forking once for all is ten times as fast.
        if not _within_limits([mutation for _, mutation in group]):
            continue
        for number, mutation in group:
            problem = _within_limits([mutation])
            if problem:
                what = f"{number} {mutation.kind} {mutation.form} {mutation.data[:200]!r}"
                found.append(f"{what}: {problem}")
    return found


def _within_limits(group: list[Mutation]) -> str:
    with tempfile.TemporaryDirectory() as name:
        return run_within_limits(partial(_first_problem, group, name), SECONDS, BYTES)


def _first_problem(group: list[Mutation], name: str) -> str:
    for number, mutation in enumerate(group):
        folder = pathlib.Path(name, str(number))
        prepare(folder)
        problem = problem_of(mutation, folder)
        if problem:
            return problem
    return ""


if __name__ == "__main__":
    run_command_line(failures, "annotation files", 5000)
