"""Run mmdetection on the seeded weights and write its numbers to ``golden.npz``.

By hand, where mmdetection 3.3.0 and the real data are installed; the test needs the file only:

    DETLITE_DATASETS=... python tests/checkpoint/peers/mmdet/make_golden.py

Everything is mmdetection's own: its config files, pipeline, model, losses and assigner. The numbers
must not hang on the last bits, and that is checked: noise of 1e-4 on all logits and deltas must
leave the same detections.
"""

import os
import sys
import zlib
from pathlib import Path

import mmdet
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.datasets import CocoDataset
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine.config import Config

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import seeded_weights  # noqa: E402  # beside this file, which is no package

DATA = Path(os.environ["DETLITE_DATASETS"])
NOISE, TRIALS = 1e-4, 10
NUM_HEAD_SAMPLES, NUM_BOX_SAMPLES = 60, 100
MAX_SIZES = {224: 373, 320: 533, 800: 1333}
TRAINING_SIZE = 224
PHOTO = "photos/17790319373_bd19b24cfc_k.jpg"
COCO = "coco_mini/images/000000{}.jpg"
# Depth, shorter side, images of one batch. Landscape beside portrait: each has padding.
DETECTION = {
    "r18_single": (18, 320, [PHOTO]),
    "r18_batch": (18, 320, [COCO.format("397133"), COCO.format("183709")]),
    "r50_single": (50, 320, [COCO.format("196393")]),
    "r50_full_size": (50, 800, [COCO.format("475678")]),
}
# Images of coco_mini's val by their ids; the last one has no annotation.
TRAINING = {"train.two": [397133, 183709], "train.one_empty": [475678, 226111]}
# Parameters whose gradients are recorded for the first of them.
GRADIENTS = (
    "backbone.layer2.0.conv1.weight",
    "backbone.layer3.1.bn2.weight",
    "neck.fpn_convs.4.conv.weight",
    "bbox_head.retina_cls.bias",
    "bbox_head.retina_reg.weight",
)


def build(depth):
    """The recipe of mmdetection with the seeded weights."""
    configs = Path(mmdet.__file__).parent / ".mim/configs/retinanet"
    config = Config.fromfile(str(configs / f"retinanet_r{depth}_fpn_1x_coco.py"))
    config.model.backbone.init_cfg = None  # no download
    model = MODELS.build(config.model)
    weights = seeded_weights.state_dict(depth)
    assert list(weights) == list(model.state_dict())
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def pipeline(shorter, *, training=False):
    """The recipe's transforms for one short side, without the flip."""
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    steps = [
        {"type": "LoadImageFromFile"},
        *([{"type": "LoadAnnotations", "with_bbox": True}] if training else []),
        {"type": "Resize", "scale": (MAX_SIZES[shorter], shorter), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": keys},
    ]
    return Compose([TRANSFORMS.build(step) for step in steps])


def batch_of(model, samples, *, training=False):
    """What the data preprocessor makes of samples: normalised pixels, data samples."""
    data = {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}
    data = model.data_preprocessor(data, training)
    return data["inputs"], data["data_samples"]


def detect(model, case, results):
    """Pixels, head outputs, decoded boxes and detections of one batch."""
    depth, shorter, images = DETECTION[case]
    random = np.random.RandomState(0)
    load = pipeline(shorter)
    samples = [load({"img_path": str(DATA / path), "img_id": 0}) for path in images]
    pixels, data_samples = batch_of(model.eval(), samples)
    metas = [sample.metainfo for sample in data_samples]
    with torch.no_grad():
        scores, deltas = model.bbox_head(model.extract_feat(pixels))
        found = [sample.pred_instances for sample in model.predict(pixels, data_samples)]
    check_robust(model, scores, deltas, metas, found, case)
    grid = [tuple(level.shape[-2:]) for level in scores]
    results[f"{case}.case"] = np.array([depth, shorter, MAX_SIZES[shorter]])
    results[f"{case}.images"] = np.array(images)
    results[f"{case}.grid"] = np.array(grid, np.int32)
    for kind, levels in (("cls", scores), ("box", deltas)):
        for i, maps in enumerate(levels):
            places = random.choice(maps.numel(), NUM_HEAD_SAMPLES, replace=False)
            results[f"{case}.{kind}{i}.places"] = places.astype(np.int32)
            results[f"{case}.{kind}{i}.values"] = maps.flatten().numpy()[places]
    priors = torch.cat(model.bbox_head.prior_generator.grid_priors(grid, device="cpu"))
    flat = [level.permute(0, 2, 3, 1).reshape(len(images), -1, 4) for level in deltas]
    for i, meta in enumerate(metas):
        key = f"{case}.{i}"
        image = samples[i]["inputs"].numpy()[::-1]  # BGR to RGB
        rows = random.choice(len(priors), NUM_BOX_SAMPLES, replace=False)
        decoded = model.bbox_head.bbox_coder.decode(
            priors[rows], torch.cat(flat, dim=1)[i, rows], max_shape=meta["img_shape"]
        )
        results[f"{key}.shape"] = np.array(image.shape, np.int32)
        results[f"{key}.crc"] = np.array(zlib.crc32(image.tobytes()), np.int64)
        results[f"{key}.sums"] = image.sum(axis=(1, 2), dtype=np.int64)
        results[f"{key}.rows"] = rows.astype(np.int32)
        results[f"{key}.decoded"] = decoded.numpy()
        results[f"{key}.boxes"] = found[i].bboxes.numpy()
        results[f"{key}.scores"] = found[i].scores.numpy()
        results[f"{key}.labels"] = found[i].labels.numpy().astype(np.int16)


def check_robust(model, scores, deltas, metas, expected, case):
    """Fail unless noise leaves the same detections."""
    generator = torch.Generator().manual_seed(0)

    def noisy(levels):
        noise = [2 * torch.rand(level.shape, generator=generator) - 1 for level in levels]
        return [level * (1 + NOISE * n) for level, n in zip(levels, noise, strict=True)]

    for _ in range(TRIALS):
        results = model.bbox_head.predict_by_feat(
            noisy(scores), noisy(deltas), batch_img_metas=metas, rescale=True
        )
        for found, wanted in zip(results, expected, strict=True):
            if not same_objects(found, wanted):
                raise SystemExit(f"{case}: noise of {NOISE} changes the detections; other images?")


def same_objects(found, wanted):
    """Whether each detection has one of its class in the other list, a pixel away at most."""
    if len(found) != len(wanted) or len(found) == 0:
        return False
    distance = (found.bboxes[:, None] - wanted.bboxes).abs().amax(dim=2)
    distance[found.labels[:, None] != wanted.labels] = torch.inf
    return bool((distance.amin(dim=0) < 1).all() and (distance.amin(dim=1) < 1).all())


def learn(model, case, results):
    """Losses, gradients and the assignment of one training batch."""
    dataset = CocoDataset(
        ann_file=str(DATA / "coco_mini/annotations/instances_val.json"),
        data_prefix={"img": str(DATA / "coco_mini/images")},
        pipeline=[],
        test_mode=True,  # keeps images without annotations
    )
    infos = {info["img_id"]: info for info in map(dataset.get_data_info, range(len(dataset)))}
    load, ids = pipeline(TRAINING_SIZE, training=True), TRAINING[case]
    samples = [load(infos[image_id]) for image_id in ids]
    pixels, data_samples = batch_of(model.train(), samples, training=True)
    model.zero_grad()
    losses = {key: sum(values) for key, values in model.loss(pixels, data_samples).items()}
    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    trained = [p.numel() for p in parameters.values() if p.requires_grad]
    results["train.trained"] = np.array([len(trained), sum(trained)], np.int64)
    results[f"{case}.case"] = np.array([TRAINING_SIZE, MAX_SIZES[TRAINING_SIZE]])
    results[f"{case}.ids"] = np.array(ids, np.int64)
    for key, value in losses.items():
        results[f"{case}.{key}"] = value.detach().numpy()
    for key in GRADIENTS if case == "train.two" else ():
        results[f"{case}.gradient.{key}"] = parameters[key].grad.norm().numpy()
    with torch.no_grad():
        grid = [feature.shape[-2:] for feature in model.extract_feat(pixels)]
    for i, (truth, meta) in enumerate(zip(*unpack_gt_instances(data_samples)[::2], strict=True)):
        assign(model.bbox_head, grid, truth, meta, results, f"{case}.{i}")


def assign(head, grid, truth, meta, results, key):
    """Which anchors learn which ground truth of an image, and which learn nothing."""
    (anchors,), (flags,) = head.get_anchors(grid, [meta], device="cpu")
    anchors, is_valid = torch.cat(anchors), torch.cat(flags)
    state = torch.full(
        (len(anchors),), -1
    )  # what lies beyond the image's own padding learns nothing
    priors = type(truth)(priors=anchors[is_valid])
    state[is_valid] = head.assigner.assign(priors, truth).gt_inds
    positive = torch.nonzero(state > 0).flatten()
    matched = state[positive] - 1
    targets = head.bbox_coder.encode(anchors[positive], truth.bboxes[matched])
    results[f"{key}.gt_boxes"] = truth.bboxes.numpy()
    results[f"{key}.gt_labels"] = truth.labels.numpy().astype(np.int16)
    results[f"{key}.positive"] = positive.numpy().astype(np.int32)
    results[f"{key}.matched"] = matched.numpy().astype(np.int16)
    results[f"{key}.targets"] = targets.numpy()
    results[f"{key}.ignored"] = np.array(zlib.crc32((state == -1).numpy().tobytes()), np.int64)
    results[f"{key}.counts"] = np.array([(state == value).sum() for value in (-1, 0)], np.int64)


def main():
    """Write the golden file."""
    torch.manual_seed(0)
    register_all_modules(init_default_scope=True)
    models = {depth: build(depth) for depth in (18, 50)}
    results = {}
    for case, (depth, *_) in DETECTION.items():
        detect(models[depth], case, results)
    for case in TRAINING:
        learn(models[18], case, results)
    np.savez_compressed(HERE / "golden.npz", **results)
    print(f"wrote {len(results)} arrays")


if __name__ == "__main__":
    main()
