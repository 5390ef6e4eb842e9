"""torchvision's weights, loaded by a recipe, detect, learn and score as in torchvision.

Each side takes its own way from the photograph to the boxes, resizing included.
"""

import contextlib
import copy
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from detlite import (
    COCOEvaluator,
    Config,
    DatasetEvaluator,
    build_model,
    inference_on_dataset,
    load_config,
)
from detlite.data import Loader, build_transforms, read_image, transform_sample
from detlite.engine.build import build_test_loaders

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "configs" / "retinanet"
# Of coco_mini's val images four with large objects, one of them upright, and one without any.
FITTED, EMPTY = [62554, 458054, 160012, 377575], 226111
MIN_SIZE, MAX_SIZE = 224, 352
# The shorter side decides the size of one, the longer side that of the other.
PHOTOS = ["19064748793_bb942deea1_k.jpg", "17790319373_bd19b24cfc_k.jpg"]
NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]

pytestmark = pytest.mark.datasets


def load_fitted_weights():
    path = HERE / "peers" / "torchvision" / "fitted_weights.py"
    spec = importlib.util.spec_from_file_location("torchvision_fitted_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fitted_weights = load_fitted_weights()
COCO_NAMES = [fitted_weights.CATEGORIES[category] for category in fitted_weights.CLASSES]


@dataclass
class Twins:
    """torchvision's model, and ours with the weights that torchvision wrote."""

    version: str
    peer: nn.Module
    model: nn.Module
    config: Config
    loader: Loader

    @property
    def dataset(self):
        return self.loader.dataset

    def record(self, image_id):
        """An image of the data set with its ground truth."""
        return self.dataset[self.dataset.image_ids.tolist().index(image_id)]


def their_target(record):
    """A sample's ground truth as torchvision wants it, with category numbers for classes."""
    categories = torch.tensor(fitted_weights.CLASSES)
    return {"boxes": record["boxes"], "labels": categories[record["classes"]]}


@pytest.fixture(scope="module")
def all_annotations(datasets_dir):
    return datasets_dir / "coco_mini" / "annotations" / "instances_val.json"


@pytest.fixture(scope="module")
def few_annotations(all_annotations, tmp_path_factory):
    """The annotation file of the images named above."""
    content = json.loads(all_annotations.read_text())
    for part, key in (("images", "id"), ("annotations", "image_id")):
        content[part] = [entry for entry in content[part] if entry[key] in (*FITTED, EMPTY)]
    assert len(content["images"]) == len(FITTED) + 1
    path = tmp_path_factory.mktemp("annotations") / "few.json"
    path.write_text(json.dumps(content))
    return path


def load_recipe(version, weights, annotations, *overrides):
    """The recipe of a version for small images."""
    data = f"{{name: CocoDetection, json: {annotations}, images: coco_mini/images}}"
    changes = {
        "model.weights": weights,
        "data.test": f"[{data}]",
        "data.test_transforms.0.min_size": MIN_SIZE,
        "data.test_transforms.0.max_size": MAX_SIZE,
        "data.num_workers": 0,
        "test.batch_size": 2,
        "device": "cpu",
    }
    return load_config(
        RECIPES / f"retinanet_r50_fpn_coco_torchvision_{version}.yaml",
        [*(f"{key}={value}" for key, value in changes.items()), *overrides],
    )


@pytest.fixture(scope="module", params=["v1", "v2"])
def twins(request, few_annotations, tmp_path_factory):
    version = request.param
    weights = tmp_path_factory.mktemp(version) / "theirs.pth"
    # Without pretrained weights torchvision trains the whole second version.
    overrides = ["model.backbone.freeze_at=0"] if version == "v2" else []
    config = load_recipe(version, weights, few_annotations, *overrides)
    (loader,) = build_test_loaders(config, COCO_NAMES)
    peer = fitted_weights.build(version, min_size=MIN_SIZE, max_size=MAX_SIZE)
    twins = Twins(version, peer, None, config, loader)
    records = [twins.record(image_id) for image_id in FITTED]
    images = [record["image"] / 255 for record in records]
    fitted_weights.fit(peer, images, [their_target(record) for record in records])
    torch.save(peer.state_dict(), weights)
    twins.model = build_model(config, COCO_NAMES)
    return twins


class Recorder(DatasetEvaluator):
    """Keeps what a model found, by image id."""

    def reset(self):
        self.found = {}

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            self.found[sample["image_id"]] = output["instances"]

    def evaluate(self):
        return {}


def run_both(twins, loader):
    """What both find in a data set, by image id and in the same batches, and our numbers."""
    recorder, evaluator = Recorder(), COCOEvaluator(dataset=loader.dataset, per_class=False)
    numbers = inference_on_dataset(twins.model, loader, [recorder, evaluator])["bbox"]
    theirs, ids = {}, loader.dataset.image_ids.tolist()
    for begin in range(0, len(ids), twins.config.test.batch_size):
        batch = range(begin, min(begin + twins.config.test.batch_size, len(ids)))
        outputs = detect(twins.peer, [loader.dataset.read_image(i) for i in batch])
        theirs.update({ids[i]: output for i, output in zip(batch, outputs, strict=True)})
    return recorder.found, theirs, numbers


def detect(peer, images):
    with torch.inference_mode():
        return peer.eval()([image / 255 for image in images])


@pytest.fixture(scope="module")
def found_by_both(twins):
    return run_both(twins, twins.loader)


def assert_same_detections(found, other):
    """Equal up to the order of scores that agree within the tolerance."""
    categories = torch.tensor(fitted_weights.CLASSES)[found.pred_classes]
    assert len(found) == len(other["scores"])
    torch.testing.assert_close(found.scores, other["scores"], rtol=0, atol=1e-5)
    same = (
        (categories[:, None] == other["labels"])
        & ((found.scores[:, None] - other["scores"]).abs() <= 1e-5)
        & ((found.pred_boxes[:, None] - other["boxes"]).abs() <= 1e-3).all(dim=2)
    )
    assert same.any(dim=0).all()
    assert same.any(dim=1).all()


def read_photo(twins, path):
    """A photograph as it is, and as our model wants it."""
    image = read_image(path)
    height, width = image.shape[1:]
    record = {"image": image, "boxes": torch.zeros(0, 4), "classes": torch.zeros(0).long()}
    record |= {"file_name": str(path), "image_id": 0, "height": height, "width": width}
    return image, transform_sample(record, build_transforms(twins.config.data.test_transforms))


def test_logits_and_deltas_of_every_level_equal_torchvision(twins, datasets_dir):
    image, sample = read_photo(twins, datasets_dir / "photos" / PHOTOS[0])
    peer, model = twins.peer.eval(), twins.model.eval()
    with torch.inference_mode():
        batch, _ = peer.transform([image / 255])
        expected = peer.head(list(peer.backbone(batch.tensors).values()))
        logits, deltas, *_ = model.predict(model.preprocessor([sample["image"]]).tensor)
    slots = expected["cls_logits"][..., fitted_weights.CLASSES]
    torch.testing.assert_close(logits, slots, rtol=0, atol=1e-4)
    torch.testing.assert_close(deltas, expected["bbox_regression"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("photo", PHOTOS)
def test_detections_on_a_photograph_equal_torchvision(twins, datasets_dir, photo):
    image, sample = read_photo(twins, datasets_dir / "photos" / photo)
    with torch.inference_mode():
        (output,) = twins.model.eval()([sample])
    assert len(output["instances"]) > 50
    assert_same_detections(output["instances"], *detect(twins.peer, [image]))


def test_detections_of_batches_equal_torchvision(found_by_both):
    found, theirs, _ = found_by_both
    assert len(found) == len(FITTED) + 1
    for image_id, instances in found.items():
        assert len(instances) > 50
        assert len(instances.pred_classes.unique()) > 8
        assert instances.scores[0] > instances.scores[-1] + 0.3
        assert_same_detections(instances, theirs[image_id])


def coco_numbers(annotations, results):
    """The twelve numbers of pycocotools, in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NUMBERS, 100 * evaluation.stats, strict=True))


def their_results(theirs):
    """Detections of torchvision in the form of COCO's results; its labels are the categories."""
    results = []
    for image_id, output in theirs.items():
        x1, y1, x2, y2 = output["boxes"].double().unbind(dim=1)
        boxes = torch.stack((x1, y1, x2 - x1, y2 - y1), dim=1).tolist()
        scores, labels = output["scores"].tolist(), output["labels"].tolist()
        results += [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
    return results


def test_evaluation_gives_torchvisions_numbers(found_by_both, few_annotations):
    _, theirs, numbers = found_by_both
    expected = coco_numbers(few_annotations, their_results(theirs))
    assert expected["AP"] > 5
    assert sum(value > 1 for value in expected.values()) >= 10
    assert numbers == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_all_of_coco_mini_val_gives_torchvisions_numbers(twins, all_annotations):
    config = load_recipe(twins.version, twins.config.model.weights, all_annotations)
    (loader,) = build_test_loaders(config, COCO_NAMES)
    assert len(loader.dataset) == 31
    _, theirs, numbers = run_both(twins, loader)
    expected = coco_numbers(all_annotations, their_results(theirs))
    assert sum(value > 0.1 for value in expected.values()) >= 10
    assert numbers == pytest.approx(expected, abs=1e-6)


def test_losses_on_photographs_equal_torchvision(twins):
    records = [twins.record(image_id) for image_id in (FITTED[0], EMPTY)]
    transforms = build_transforms(twins.config.data.test_transforms)
    images, targets = [r["image"] / 255 for r in records], [their_target(r) for r in records]
    # Training moves the statistics of batch normalizations.
    peer, model = copy.deepcopy(twins.peer).train(), copy.deepcopy(twins.model).train()
    with torch.no_grad():
        expected = peer(images, targets)
        losses = model([transform_sample(record, transforms) for record in records])
    for ours, theirs in (("loss_cls", "classification"), ("loss_box", "bbox_regression")):
        assert losses[ours] > 0.01
        torch.testing.assert_close(losses[ours], expected[theirs], rtol=1e-5, atol=0)
    assert losses["num_positives"] > 12


def test_the_recipe_is_what_the_weights_were_made_with(twins, caplog):
    build_model(twins.config, COCO_NAMES)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("twins", ["v1"], indirect=True)
def test_names_of_before_torchvision_013_give_the_same_model(twins, few_annotations, tmp_path):
    """The second version is younger than the names of today."""
    state = torch.load(twins.config.model.weights, weights_only=True)
    old = fitted_weights.old_names(state)
    assert len(old.keys() - state.keys()) == 28
    twins.peer.load_state_dict(dict(old), strict=True)
    torch.save(old, tmp_path / "old.pth")
    config = load_recipe("v1", tmp_path / "old.pth", few_annotations)
    found, expected = build_model(config, COCO_NAMES).state_dict(), twins.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
