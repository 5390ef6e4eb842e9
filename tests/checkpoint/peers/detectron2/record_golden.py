"""Run detectron2 with the seeded weights and write what it computes to golden.npz.

    DETLITE_DATASETS=... python record_golden.py            # writes golden.npz beside this file
    DETLITE_DATASETS=... python record_golden.py --search 50    # finds a seed for SCORE_SEED

It needs detectron2 (built by `python setup.py build_ext --inplace`, with setuptools below 81); the
test that reads golden.npz does not. It refuses to record what rounding could turn.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import seeded_weights
import torch
from decisions import REQUIRED, Candidates, detection_margins, find_candidates, matching_margins
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.utils.events import EventStorage
from torch import Tensor

DATASETS = Path(os.environ["DETLITE_DATASETS"])
IMAGES = {
    "photo": "photos/17790319373_bd19b24cfc_k.jpg",
    "portrait": "coco_mini/images/000000377575.jpg",
    "landscape": "coco_mini/images/000000458054.jpg",
    "tiny": "coco_mini/images/000000062554.jpg",
}
ALONE = ("photo", "portrait", "landscape")
# A batch is padded to its greatest height and width.
BATCH = ("portrait", "landscape")
# What is learned: at 320 an object of "tiny" overlaps no anchor by half, and has its best ones.
LEARNED = {320: ("portrait", "tiny"), 800: BATCH}
SIZES = (320, 800)
SAMPLES = 24

Golden = dict[str, np.ndarray]


def make_config(size: int, weights: Path) -> CfgNode:
    """detectron2's own config of RetinaNet, for a size of the shorter side."""
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.INPUT.MIN_SIZE_TEST = size
    return cfg


def model_input(predictor: DefaultPredictor, name: str) -> dict[str, Any]:
    """An image as detectron2's predictor gives it to the model."""
    image = read_image(str(DATASETS / IMAGES[name]), predictor.input_format)
    resized = predictor.aug.get_transform(image).apply_image(image)
    tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}


@torch.no_grad()
def predict(model: Any, inputs: list[dict[str, Any]]) -> tuple[Any, ...]:
    """Anchors of each level, logits and deltas of each level (N, R, .), the images' sizes."""
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    features = [features[name] for name in model.head_in_features]
    outputs = model._transpose_dense_predictions(model.head(features), [model.num_classes, 4])
    return model.anchor_generator(features), *outputs, images.image_sizes


def runs(predictor: DefaultPredictor) -> Iterator[tuple[str, list[str], list[dict[str, Any]]]]:
    """Name, images and inputs of each inference: every image alone, then a batch."""
    for name in ALONE:
        yield name, [name], [model_input(predictor, name)]
    yield "batch", list(BATCH), [model_input(predictor, name) for name in BATCH]


def record_detections(predictor: DefaultPredictor, size: int, golden: Golden) -> None:
    """Raw scores and boxes of some anchors, and all detections."""
    model = predictor.model
    for run, names, inputs in runs(predictor):
        anchors, logits, deltas, image_sizes = predict(model, inputs)
        if run == "batch":
            with torch.no_grad():
                results = [result["instances"] for result in model(inputs)]
        else:
            # detectron2's whole way, from the pixels of the file on.
            original = read_image(str(DATASETS / IMAGES[run]), predictor.input_format)
            results = [predictor(original)["instances"]]
            resized = inputs[0]["image"]
            golden[f"{size}/{run}/input_size"] = np.array(resized.shape[1:])
            golden[f"{size}/{run}/pixel_sums"] = resized.long().sum((1, 2)).numpy()
        for i, (image_name, found) in enumerate(zip(names, results, strict=True)):
            key = f"{size}/{run}/{image_name}" if run == "batch" else f"{size}/{run}"
            scores = [level[i].sigmoid() for level in logits]
            of_image = [level[i] for level in deltas]
            levels = zip(anchors, (level[i] for level in logits), of_image, strict=True)
            candidates = [find_candidates(model, *level, lowest=-4.0) for level in levels]
            margins = detection_margins(model, candidates, image_sizes[i])
            num_classes = len(found.pred_classes.unique())
            print(f"{key}: {len(found)} detections of {num_classes} classes, {margins}")
            refuse_close(key, margins)
            sample = raw_sample(model, anchors, scores, of_image)
            golden |= {f"{key}/{name}": value for name, value in sample.items()}
            golden[f"{key}/boxes"] = found.pred_boxes.tensor.numpy()
            golden[f"{key}/scores"] = found.scores.numpy()
            golden[f"{key}/classes"] = found.pred_classes.numpy().astype(np.int32)


def raw_sample(
    model: Any, anchors: list[Any], scores: list[Tensor], deltas: list[Tensor]
) -> Golden:
    """Scores of one class, and boxes, of some anchors of each level."""
    stream = np.random.RandomState(0)
    picked, start = [], 0
    for level in scores:
        picked.append(start + stream.choice(len(level), min(SAMPLES, len(level)), replace=False))
        start += len(level)
    rows = np.sort(np.concatenate(picked))
    classes = stream.randint(model.num_classes, size=len(rows))
    places = torch.cat([level.tensor for level in anchors])[rows]
    boxes = model.box2box_transform.apply_deltas(torch.cat(deltas)[rows], places)
    return {
        "raw_anchors": rows.astype(np.int32),
        "raw_classes": classes.astype(np.int32),
        "raw_scores": torch.cat(scores)[rows, classes].numpy(),
        "raw_boxes": boxes.numpy(),
    }


def record_losses(model: Any, size: int, golden: Golden) -> None:
    """Both losses of two training steps: of the batch, then of its second image alone."""
    folder = DATASETS / "coco_mini"
    records = load_coco_json(
        str(folder / "annotations/instances_val.json"), str(folder / "images"), "coco_mini_val"
    )
    resize = T.ResizeShortestEdge([size, size], 1333)
    mapper = DatasetMapper(is_train=True, augmentations=[resize], image_format="BGR")
    by_file = {record["file_name"]: record for record in records}
    samples = [mapper(by_file[str(DATASETS / IMAGES[name])]) for name in LEARNED[size]]
    anchors, *_ = predict(model, samples)
    for name, sample in zip(LEARNED[size], samples, strict=True):
        refuse_close(name, matching_margins(anchors, sample["instances"].gt_boxes))
        golden[f"{size}/losses/{name}/gt_boxes"] = sample["instances"].gt_boxes.tensor.numpy()
        golden[f"{size}/losses/{name}/gt_classes"] = sample["instances"].gt_classes.numpy()
    model.train()
    values = []
    with EventStorage():
        for batch in (samples, samples[1:]):
            losses = model(batch)
            values.append([losses["loss_cls"].item(), losses["loss_box_reg"].item()])
    print(size, "losses", values, "normalizer", model.loss_normalizer)
    golden[f"{size}/losses/values"] = np.array(values)


def record_backbones(folder: Path, golden: Golden) -> None:
    """What the backbones compute, each in the model that its weights are for."""
    files = {
        "msra.pkl": seeded_weights.pickle_as_python2(seeded_weights.msra_backbone(folded=False)),
        "folded.pkl": seeded_weights.pickle_as_python2(seeded_weights.msra_backbone(folded=True)),
        "pycls.pyth": None,
    }
    for file, content in files.items():
        path = folder / file
        if content is None:
            state = seeded_weights.pycls_backbone(pycls_names=False)
            tensors = {name: torch.as_tensor(value) for name, value in state.items()}
            torch.save({"model_state": tensors, "epoch": 99}, path)
        else:
            path.write_bytes(content)
        cfg = make_config(SIZES[0], path)
        if content is None:
            cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
            cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
        predictor = DefaultPredictor(cfg)
        images = predictor.model.preprocess_image([model_input(predictor, "photo")])
        with torch.no_grad():
            features = predictor.model.backbone.bottom_up(images.tensor)
        for stage, values in features.items():
            print(path.stem, stage, values.mean().item(), values.std().item())
            golden[f"{path.stem}/{stage}/mean"] = values.double().mean().numpy()
            golden[f"{path.stem}/{stage}/sample"] = sample_of(values).numpy()


def sample_of(values: Tensor) -> Tensor:
    """Some 60 numbers out of all parts of a tensor."""
    return values.flatten()[:: values.numel() // 60 + 1]


def refuse_close(name: str, margins: dict[str, float]) -> None:
    """Stop where rounding could change a decision."""
    close = {key: value for key, value in margins.items() if value < REQUIRED[key]}
    if close:
        raise SystemExit(f"{name}: too close to another decision: {close}; need {REQUIRED}")


@torch.no_grad()
def search(weights: Path, num_seeds: int) -> None:
    """Print for each seed of the scores' biases how near the nearest decision is."""
    images = []
    for size in SIZES:
        predictor = DefaultPredictor(make_config(size, weights))
        for _, names, inputs in runs(predictor):
            anchors, logits, deltas, sizes = predict(predictor.model, inputs)
            for i in range(len(names)):
                levels = zip(anchors, (x[i] for x in logits), (x[i] for x in deltas), strict=True)
                lowest = -4.0 - 2 * seeded_weights.PRIOR_SPREAD
                found = [find_candidates(predictor.model, *x, lowest=lowest) for x in levels]
                images.append((found, sizes[i]))
    given = seeded_weights.score_bias(seeded_weights.SCORE_SEED)
    for seed in range(num_seeds):
        change = torch.from_numpy(seeded_weights.score_bias(seed) - given)
        worst = dict.fromkeys(REQUIRED, float("inf"))
        for levels, image_size in images:
            moved = [Candidates(x.boxes, x.logits + change[x.channels], x.channels) for x in levels]
            margins = detection_margins(predictor.model, moved, image_size)
            worst = {key: min(worst[key], margins[key]) for key in worst}
        ratio = min(worst[key] / REQUIRED[key] for key in worst)
        print(f"seed {seed}: {ratio:.3f} of what is required", worst, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", type=int, metavar="SEEDS", help="try this many score seeds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model_final.pkl"
        checkpoint = seeded_weights.zoo_checkpoint()
        weights.write_bytes(seeded_weights.pickle_as_python3(checkpoint))
        if arguments.search:
            search(weights, arguments.search)
            return
        golden: Golden = {}
        for size in SIZES:
            predictor = DefaultPredictor(make_config(size, weights))
            record_detections(predictor, size, golden)
            record_losses(predictor.model, size, golden)
        record_backbones(Path(folder), golden)
    np.savez_compressed(Path(__file__).with_name("golden.npz"), **golden)


if __name__ == "__main__":
    main()
