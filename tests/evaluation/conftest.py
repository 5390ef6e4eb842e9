"""Ground truth from COCO's JSON, and results of its form as batches of a model's outputs."""

import contextlib
import copy
import io
import json
import pathlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlite.structures import Instances


@dataclass(frozen=True)
class JsonGroundTruth:
    """The plainest data set that an evaluator can take."""

    name: str
    class_names: tuple[str, ...]
    category_ids: np.ndarray
    image_ids: list
    heights: np.ndarray
    widths: np.ndarray
    offsets: np.ndarray
    boxes_xywh: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    annotation_ids: np.ndarray

    def __len__(self):
        return len(self.image_ids)


def json_ground_truth(content, name="test"):
    """Sort the annotations of a COCO JSON by image; a key "difficult" is read where it is."""
    images, categories = content["images"], content["categories"]
    ids = [image["id"] for image in images]
    index = {image_id: i for i, image_id in enumerate(ids)}
    class_of = {category["id"]: k for k, category in enumerate(categories)}
    boxes = sorted(content["annotations"], key=lambda a: index[a["image_id"]])
    per_image = np.bincount([index[a["image_id"]] for a in boxes], minlength=len(ids))
    return JsonGroundTruth(
        name=name,
        class_names=tuple(category["name"] for category in categories),
        category_ids=np.array(list(class_of), np.int64),
        image_ids=ids,
        heights=np.array([image["height"] for image in images], np.int32),
        widths=np.array([image["width"] for image in images], np.int32),
        offsets=np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64),
        boxes_xywh=np.array([a["bbox"] for a in boxes], np.float64).reshape(-1, 4),
        classes=np.array([class_of[a["category_id"]] for a in boxes], np.int64),
        areas=np.array([a["area"] for a in boxes], np.float64),
        crowd=np.array([a["iscrowd"] for a in boxes], bool),
        difficult=np.array([a.get("difficult", 0) for a in boxes], bool),
        annotation_ids=np.array([a["id"] for a in boxes], np.int64),
    )


def model_outputs(truth, results, dtype=torch.float64):
    """COCO results as the input and the output of a model, one pair an image of the data set."""
    classes = {category: k for k, category in enumerate(truth.category_ids.tolist())}
    by_image = {image_id: [] for image_id in truth.image_ids}
    for result in results:
        by_image[result["image_id"]].append(result)
    pairs = []
    for i, found in enumerate(by_image.values()):
        size = (int(truth.heights[i]), int(truth.widths[i]))
        boxes = torch.tensor([r["bbox"] for r in found], dtype=dtype).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances(
            size,
            pred_boxes=boxes,
            scores=torch.tensor([r["score"] for r in found], dtype=dtype),
            pred_classes=torch.tensor([classes[r["category_id"]] for r in found]).long(),
        )
        entry = {"image_id": truth.image_ids[i], "height": size[0], "width": size[1]}
        pairs.append((entry | {"file_name": f"{i}.jpg"}, {"instances": instances}))
    return pairs


def evaluated(evaluator, pairs):
    """The results of an evaluator that is fed image by image."""
    evaluator.reset()
    for entry, output in pairs:
        evaluator.process([entry], [output])
    return evaluator.evaluate()


def random_content(seed, num_images=12, categories=(3, 7, 90)):
    """A COCO JSON and results that partly fit it: gaps in ids, crowds, ties, an empty image."""
    rng = np.random.default_rng(seed)
    images = [{"id": 5 + 3 * i, "height": 200, "width": 300} for i in range(num_images)]
    annotations, results = [], []
    for image in images[1:]:
        for _ in range(rng.integers(1, 9)):
            box = [*rng.uniform(0, 150, 2), *rng.uniform(5, 150, 2)]
            common = {"image_id": image["id"], "category_id": int(rng.choice(categories))}
            area = box[2] * box[3] * rng.uniform(0.5, 1)
            number, crowd = len(annotations) + 1, int(rng.random() < 0.1)
            annotations.append(
                {**common, "id": number, "bbox": box, "area": area, "iscrowd": crowd}
            )
            for _ in range(rng.integers(0, 3)):
                moved = (np.array(box) + rng.normal(0, 6, 4)).clip(1).round(2).tolist()
                score = round(float(rng.random()), 1)
                results.append({**common, "bbox": moved, "score": score})
    named = [{"id": category, "name": f"class {category}"} for category in categories]
    return {"images": images, "categories": named, "annotations": annotations}, results


def pycocotools_arrays(truth, results, limits=(1, 10, 100)):
    """Its twelve numbers and three arrays; the arguments stay as they are."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        if results:
            found = coco.loadRes(copy.deepcopy(results))
        else:  # loadRes looks at the first result to see what all are
            found = COCO()
            found.dataset = {**coco.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, "bbox")
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, *(evaluation.eval[key] for key in ("precision", "recall", "scores"))


@pytest.fixture
def case():
    """The functions of this file, which test modules cannot import."""
    return Case


class Case:
    """How a test builds its data."""

    ground_truth = staticmethod(json_ground_truth)
    outputs = staticmethod(model_outputs)
    evaluated = staticmethod(evaluated)
    random = staticmethod(random_content)
    pycocotools = staticmethod(pycocotools_arrays)

    @staticmethod
    def load(path):
        """The content of a JSON file."""
        return json.loads(pathlib.Path(path).read_text())
