"""The oracle is pycocotools, on masks that are as they should be."""

import numpy as np
import pytest
from pycocotools import mask as oracle

from detlite import DataError
from detlite.evaluation import coco_arrays
from detlite.evaluation.coco_files import read_ground_truth
from detlite.evaluation.coco_masks import box_of_segmentation

SIZES = [(7, 5), (1, 9), (9, 1), (40, 60)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0, 0.02, 0.1, 0.6, 1])
def test_boxes_of_masks_are_those_of_pycocotools(size, share):
    pixels = np.random.default_rng([*size, int(share * 100)]).random(size) < share
    encoded = oracle.encode(np.asfortranarray(pixels.astype(np.uint8)))
    text = {"size": [*size], "counts": encoded["counts"].decode()}
    flat = pixels.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
    runs = np.diff([0, *edges, flat.size]).tolist()
    expected = oracle.toBbox(encoded).tolist()
    assert [*box_of_segmentation(text)] == expected
    assert [*box_of_segmentation({"size": [*size], "counts": runs})] == expected


def test_long_runs_and_differences_are_decompressed():
    pixels = np.zeros((500, 700), np.uint8)
    pixels[100:400, 300:305] = 1
    pixels[3, 699] = 1
    encoded = oracle.encode(np.asfortranarray(pixels))
    text = {"size": [500, 700], "counts": encoded["counts"].decode()}
    assert [*box_of_segmentation(text)] == oracle.toBbox(encoded).tolist() == [300, 3, 400, 397]


def test_the_box_of_several_polygons_holds_all_of_them():
    assert box_of_segmentation([[1, 2, 3, 2, 3, 5], [10.5, 0, 11, 1]]) == (1, 0, 10, 5)
    assert box_of_segmentation([1, 2, 3, 2, 3, 5]) == (1, 2, 2, 3)


@pytest.mark.parametrize(
    "segmentation",
    [
        *(None, [], "text", 5, [[]], [[1, 2]], [[1, 2, 3, 4, 5]], [["1", 2, 3, 4]], [[1, 2], [[]]]),
        *([[1, 2, 3, 10**400]], [[1, 2, 3, float("nan")]], [[True, 2, 3, 4]], [None], {}),
        {"size": [0, 0], "counts": []},
        {"size": [10**9, 10**9], "counts": [5]},
        {"size": [3, 3], "counts": [10, -1]},
        {"size": [3, 3], "counts": "P" * 1000},
        {"size": [3, 3], "counts": "9o"},
        {"size": [3, 3], "counts": "\x00\ud800"},
        {"size": [3, 3], "counts": None},
        {"size": [3.0, 3], "counts": [9]},
        {"size": [10**400, 3], "counts": [9]},
        {"size": [3, 3], "counts": [10**400]},
    ],
)
def test_what_is_no_mask_is_a_value_error(segmentation):
    with pytest.raises(ValueError, match=r"polygon|RLE"):
        box_of_segmentation(segmentation)


@pytest.mark.datasets
def test_evaluation_makes_the_same_boxes_from_polygons(cases_dir, caplog):
    folder = cases_dir / "polygon-only"
    made, expected = (
        coco_arrays(read_ground_truth(folder / f"{name}.json"), [])
        for name in ("poly_only", "boxes_expected")
    )
    assert made.gt_boxes.tolist() == expected.gt_boxes.tolist()
    assert "annotations have no `bbox`" in caplog.text


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ('"bbox": [1, 2, 3, ' + "9" * 400 + "]", "four finite numbers"),
        ('"segmentation": {"size": [0, 0], "counts": "0"}', "annotation 0 of 1 .* `size`"),
        ('"segmentation": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('"category": 5', "it has no bbox"),
    ],
)
def test_evaluation_tells_of_hostile_entries(tmp_path, box, message):
    path = tmp_path / "gt.json"
    entry = f'{{"id": 1, "image_id": 1, "category_id": 1, {box}}}'
    path.write_text(
        f'{{"images": [{{"id": 1}}], "categories": [{{"id": 1}}], "annotations": [{entry}]}}'
    )
    with pytest.raises(DataError, match=message):
        coco_arrays(read_ground_truth(path), [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_evaluation_reads_other_encodings(tmp_path, encoding):
    path = tmp_path / "gt.json"
    path.write_text('{"images": [], "categories": [], "annotations": []}', encoding=encoding)
    assert read_ground_truth(path) == {"images": [], "categories": [], "annotations": []}
