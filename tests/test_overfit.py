"""The model learns in the limit: four real photographs by heart."""

import json

import pytest

from detlite import build_trainer, load_config

QUICKSTART = __file__.rpartition("/tests/")[0] + "/configs/quickstart.yaml"


def most_visible(content, count):
    """The images without crowds whose smallest box is the largest, as ids."""
    sides = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        side = 0 if annotation["iscrowd"] else min(annotation["bbox"][2:])
        sides[annotation["image_id"]].append(side)
    several = {i: min(found) for i, found in sides.items() if len(found) > 1}
    return sorted(several, key=several.__getitem__)[-count:]


@pytest.mark.slow
@pytest.mark.datasets
def test_four_real_images_are_learnt_by_heart(datasets_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("DETLITE_DATASETS")
    source = datasets_dir / "coco_mini"
    content = json.loads((source / "annotations/instances_train.json").read_text())
    chosen = most_visible(content, count=4)
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    (tmp_path / "four.json").write_text(json.dumps(content))
    data = f"[{{name: CocoDetection, json: {tmp_path}/four.json, images: {source}/images}}]"
    config = load_config(
        QUICKSTART,
        [
            f"output_dir={tmp_path / 'run'}",
            f"data.train={data}",
            f"data.test={data}",
            "data.train_transforms=[{name: ResizeShortestEdge, min_size: 224, max_size: 320}]",
            "data.test_transforms=[{name: ResizeShortestEdge, min_size: 224, max_size: 320}]",
            "data.batch_size=4",
            "data.num_workers=0",
            "model.anchor_generator={aspect_ratios: [0.5, 1.0, 2.0]}",
            "model.backbone.out_features=[res3, res4, res5]",
            "model.neck.extra_levels={name: P6P7}",
            "solver.max_iter=250",
            "solver.schedule.warmup_iters=20",
            "train.hooks=[]",
            "test.batch_size=4",
        ],
    )
    results = build_trainer(config).train()
    assert results["four"]["bbox"]["AP50"] > 95
