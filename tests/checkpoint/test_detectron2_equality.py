"""detectron2's weights, loaded by its recipe, detect and learn as in detectron2.

peers/detectron2/record_golden.py ran detectron2 on photographs with seeded weights and wrote down
what it computed; here the same weights are made again and loaded through ``model.weights``.
"""

import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from detlite import build_model, load_config
from detlite.data import build_datasets, build_transforms, read_image, transform_sample

HERE = Path(__file__).parent
PEER = HERE / "peers" / "detectron2"
RECIPE = HERE.parents[1] / "configs" / "retinanet" / "retinanet_r50_fpn_1x_coco.yaml"
ANNOTATIONS, IMAGES = "coco_mini/annotations/instances_val.json", "coco_mini/images"
PHOTO = "photos/17790319373_bd19b24cfc_k.jpg"
# By the names of the golden file.
IMAGE_IDS = {"portrait": 377575, "landscape": 458054, "tiny": 62554}
RUNS = {"photo": ["photo"], "portrait": ["portrait"], "landscape": ["landscape"]}
RUNS["batch"] = ["portrait", "landscape"]
# At 320 an object of "tiny" overlaps no anchor by half.
LEARNED = {320: ["portrait", "tiny"], 800: ["portrait", "landscape"]}
# Relative. Coordinates near 0 are differences of great numbers: they may be off by a share of the
# box's longer side, or by some pixels.
TOLERANCE, OF_SIDE, PIXELS = 1e-4, 3e-5, 1e-3

pytestmark = pytest.mark.datasets
cases = pytest.mark.parametrize(
    ("size", "run"),
    [(320, run) for run in RUNS]
    + [(800, "portrait")]
    + [pytest.param(800, run, marks=pytest.mark.slow) for run in RUNS if run != "portrait"],
)


def load_seeded_weights():
    path = PEER / "seeded_weights.py"
    spec = importlib.util.spec_from_file_location("detectron2_seeded_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seeded_weights = load_seeded_weights()


@pytest.fixture(scope="module")
def golden():
    with np.load(PEER / "golden.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def load_recipe(weights, *overrides, size=320):
    changes = [
        f"model.weights={weights}",
        f"data.test=[{{name: CocoDetection, json: {ANNOTATIONS}, images: {IMAGES}}}]",
        f"data.test_transforms.0.min_size={size}",
        "device=cpu",
        "model.independent_images=false",  # the padding of a batch is there too
    ]
    return load_config(RECIPE, [*changes, *overrides])


@pytest.fixture(scope="module")
def coco_mini(datasets_dir):
    (dataset,) = build_datasets(load_recipe("''").data.test, "data.test")
    return dataset


@pytest.fixture(scope="module")
def sample(coco_mini, datasets_dir):
    """Make the model's input of an image at a size, as tests and training with one size do."""

    def make(name, size):
        transforms = build_transforms(load_recipe("''", size=size).data.test_transforms)
        if name in IMAGE_IDS:
            record = coco_mini[coco_mini.image_ids.tolist().index(IMAGE_IDS[name])]
        else:
            image = read_image(datasets_dir / PHOTO)
            record = {"image": image, "height": image.shape[1], "width": image.shape[2]}
            record |= {"boxes": torch.zeros(0, 4), "classes": torch.zeros(0, dtype=torch.int64)}
            record |= {"file_name": PHOTO, "image_id": 0}
        return transform_sample(record, transforms)

    return make


@pytest.fixture(scope="module")
def loaded(coco_mini, tmp_path_factory):
    """The model with the weights of a file of the zoo, and what was logged."""
    path = tmp_path_factory.mktemp("detectron2") / "model_final.pkl"
    path.write_bytes(seeded_weights.pickle_as_python3(seeded_weights.zoo_checkpoint()))
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("detlite").addHandler(handler)
    try:
        model = build_model(load_recipe(path), coco_mini.class_names, complete=True)
    finally:
        logging.getLogger("detlite").removeHandler(handler)
        path.unlink()
    return model, records


@pytest.fixture
def model(loaded):
    return loaded[0].eval()


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=TOLERANCE, atol=0)


def assert_boxes_close(ours, theirs):
    side = (theirs[:, 2:] - theirs[:, :2]).amax(dim=1, keepdim=True)
    allowed = (TOLERANCE * theirs.abs()).maximum(OF_SIDE * side).clamp(min=PIXELS)
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs() / allowed).max() <= 1


def test_an_old_file_of_the_zoo_is_loaded_whole_without_a_warning(loaded):
    _, records = loaded
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("size", [320, 800])
@pytest.mark.parametrize("name", ["photo", "portrait", "landscape"])
def test_resized_pixels_equal_detectron2(golden, sample, name, size):
    image = sample(name, size)["image"]
    assert list(image.shape[1:]) == golden[f"{size}/{name}/input_size"].tolist()
    blue_first = image.flip(0).to(torch.int64).sum(dim=(1, 2))
    assert blue_first.tolist() == golden[f"{size}/{name}/pixel_sums"].tolist()


@cases
def test_scores_boxes_and_detections_equal_detectron2(golden, model, sample, size, run):
    dense = {}
    hooks = [
        model.head.register_forward_hook(lambda *call: dense.update(head=call[-1])),
        model.anchor_generator.register_forward_hook(lambda *call: dense.update(anchors=call[-1])),
    ]
    with torch.inference_mode():
        results = model([sample(name, size) for name in RUNS[run]])
    for hook in hooks:
        hook.remove()
    logits, deltas = dense["head"]
    anchors = torch.cat(dense["anchors"])
    for i, (name, result) in enumerate(zip(RUNS[run], results, strict=True)):
        key = f"{size}/{run}/{name}" if run == "batch" else f"{size}/{run}"
        rows, classes = golden[f"{key}/raw_anchors"].long(), golden[f"{key}/raw_classes"].long()
        assert_close(logits[i, rows, classes].sigmoid(), golden[f"{key}/raw_scores"])
        boxes = model.box_coder.decode(deltas[i, rows], anchors[rows])
        assert_boxes_close(boxes, golden[f"{key}/raw_boxes"])
        found = result["instances"]
        assert found.pred_classes.tolist() == golden[f"{key}/classes"].tolist()
        assert_close(found.scores, golden[f"{key}/scores"])
        assert_boxes_close(found.pred_boxes, golden[f"{key}/boxes"])


@pytest.mark.parametrize("size", [320, pytest.param(800, marks=pytest.mark.slow)])
def test_losses_of_two_steps_equal_detectron2(golden, model, sample, size):
    batch = [sample(name, size) for name in LEARNED[size]]
    for name, one in zip(LEARNED[size], batch, strict=True):
        key = f"{size}/losses/{name}"
        assert_boxes_close(one["instances"].gt_boxes, golden[f"{key}/gt_boxes"])
        assert one["instances"].gt_classes.tolist() == golden[f"{key}/gt_classes"].tolist()
    model.loss_normalizer.average.fill_(100)
    model.train()
    with torch.no_grad():
        # The second step finds the normalizer where the first one has left it.
        losses = [model(images) for images in (batch, batch[1:])]
    ours = torch.stack([torch.stack((loss["loss_cls"], loss["loss_box"])) for loss in losses])
    assert_close(ours, golden[f"{size}/losses/values"])


PYCLS = ["model.backbone.stride_in_1x1=false", "model.preprocessor.std=[58.395, 57.12, 57.375]"]
# File, in Python 2's pickle or of torch: the golden name, what it holds, keys of the config.
BACKBONES = {
    "msra.pkl": ("msra", lambda: seeded_weights.msra_backbone(folded=False), []),
    "folded.pkl": ("folded", lambda: seeded_weights.msra_backbone(folded=True), []),
    "pycls.pyth": ("pycls", lambda: seeded_weights.pycls_backbone(pycls_names=True), PYCLS),
    "renamed.pyth": ("pycls", lambda: seeded_weights.pycls_backbone(pycls_names=False), PYCLS),
}


@pytest.mark.parametrize("file", BACKBONES)
def test_backbones_compute_what_they_do_in_detectron2(golden, coco_mini, sample, tmp_path, file):
    key, make, overrides = BACKBONES[file]
    path = tmp_path / file
    if path.suffix == ".pkl":
        path.write_bytes(seeded_weights.pickle_as_python2(make()))
    else:
        state = {name: torch.as_tensor(value) for name, value in make().items()}
        torch.save({"model_state": state, "epoch": 99}, path)
    model = build_model(load_recipe(path, *overrides), coco_mini.class_names)
    path.unlink()
    with torch.inference_mode():
        features = model.backbone(model.preprocessor([sample("photo", 320)["image"]]).tensor)
    for stage, values in features.items():
        # Folded norms differ from whole ones by eps alone, which a mean tells apart.
        mean, expected = values.double().mean().item(), golden[f"{key}/{stage}/mean"].item()
        assert mean == pytest.approx(expected, rel=3e-6)
        some = values.flatten()[:: values.numel() // 60 + 1]
        floor = TOLERANCE * values.std().item()
        torch.testing.assert_close(some, golden[f"{key}/{stage}/sample"], rtol=0, atol=floor)
