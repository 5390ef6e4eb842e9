"""Small runs whose keys are changed: of several kinds of optimizers, schedules and data."""

import json
import pathlib

from PIL import Image

import detlite
from detlite.data.datasets import Shapes

QUICKSTART = pathlib.Path(detlite.__file__).parents[1] / "configs" / "quickstart.yaml"
SMALL = [
    "data.batch_size=2",
    "data.num_workers=0",
    "data.train_transforms=[{name: RandomHorizontalFlip}]",
    "device=cpu",
    "model.backbone={out_features: [res2, res3]}",
    "model.anchor_generator.base_size=4",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "solver.max_iter=4",
    "train.precision=fp32",
    "train.channels_last=false",
    "train.hooks=[{name: EarlyStopping, patience: 9}, {name: TensorBoardWriter, enabled: false}]",
    "train.log_period=2",
    "test.precision=fp32",
    "test.batch_size=2",
]
SHAPES = [
    "data.train=[{name: Shapes, num_images: 12, image_size: [64, 64]}]",
    "data.test=[{name: Shapes, num_images: 2, seed: 9, image_size: [64, 64]}]",
]
COCO = [
    "data.train=[{name: CocoDetection, json: a.json, images: .,"
    " classes: [circle, triangle, cross]}]",
    "data.test=[{name: CocoDetection, json: a.json, images: ., title: t,"
    " classes: [circle, triangle, cross]}]",
]
# Together they have the kinds of optimizers and schedules.
RUNS = {
    "adamw": [
        *SHAPES,
        "solver.schedule.warmup_iters=2",
        "solver.optimizer.fused=false",
        "train.ema={decay: 0.9, warmup: 4}",
    ],
    "sgd": [
        *COCO,
        "solver.optimizer={name: SGD, lr: 0.002, momentum: 0.9, weight_decay: 0.0001}",
        "solver.schedule={name: OneCycleLR, max_lr: 0.002, total_steps: 4}",
        "solver.parameter_groups=[{match: head.*, lr_factor: 0.5}]",
    ],
    "adagrad": [
        *COCO,
        "data.test=[]",
        "solver.optimizer={name: Adagrad, lr: 0.001}",
        "solver.schedule={name: StepLR, step_size: 3}",
        "train.hooks=[{name: NonFiniteLossCheck, policy: skip}]",
    ],
    "rmsprop": [
        *SHAPES,
        "solver.optimizer={name: RMSprop, lr: 0.0005}",
        "solver.schedule={name: CosineAnnealingLR, T_max: 4}",
        "model.loss_normalizer={name: MovingAverageNormalizer}",
    ],
}


def write_coco(folder):
    """Shapes as files; ``other.json`` lists half of them."""
    folder.mkdir(parents=True)
    dataset = Shapes(num_images=8, image_size=(64, 64))
    images, annotations = [], []
    for i in range(len(dataset)):
        sample = dataset[i]
        Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 64, "width": 64})
        for box, number in zip(sample["boxes"].tolist(), sample["classes"].tolist(), strict=True):
            x, y, right, bottom = box
            w, h = right - x, bottom - y
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": number + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(dataset.class_names)]
    for name, kept in (("a.json", 8), ("other.json", 4)):
        content = {
            "images": images[:kept],
            "annotations": [a for a in annotations if a["image_id"] <= kept],
            "categories": categories,
        }
        (folder / name).write_text(json.dumps(content))
