"""The model learns in the limit: four real photographs by heart."""

import json

import pytest

from detlite import build_trainer, load_config

QUICKSTART = __file__.rpartition("/tests/")[0] + "/configs/quickstart.yaml"


@pytest.mark.slow
@pytest.mark.datasets
def test_four_real_images_are_learnt_by_heart(datasets_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("DETLITE_DATASETS")
    source = datasets_dir / "coco_mini"
    content = json.loads((source / "annotations/instances_train.json").read_text())
    boxes = [a for a in content["annotations"] if not a["iscrowd"]]
    counts = {i["id"]: sum(b["image_id"] == i["id"] for b in boxes) for i in content["images"]}
    chosen = sorted(counts, key=lambda i: (not 2 <= counts[i] <= 8, i))[:4]
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
            "data.train_transforms=[{name: ResizeShortestEdge, min_size: 256, max_size: 400}]",
            "data.test_transforms=[{name: ResizeShortestEdge, min_size: 256, max_size: 400}]",
            "data.batch_size=4",
            "data.num_workers=0",
            "model.backbone.norm=GN",
            "model.anchor_generator={aspect_ratios: [0.5, 1.0, 2.0]}",
            "model.backbone.out_features=[res3, res4, res5]",
            "model.neck.extra_levels={name: P6P7}",
            "solver.max_iter=200",
            "solver.optimizer.lr=0.001",
            "solver.schedule.warmup_iters=20",
            "train.hooks=[]",
            "test.batch_size=4",
        ],
    )
    results = build_trainer(config).train()
    assert results["four"]["bbox"]["AP50"] > 95
