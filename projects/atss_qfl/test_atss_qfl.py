import math
from pathlib import Path

import pytest
import torch

from detlite import ConfigError, build_trainer, load_config

HERE = Path(__file__).parent
BCCD = HERE / "atss_qfl_r18_fpn_bccd.yaml"
SHAPES = ["data.train=[{name: Shapes, num_images: 8}]", "data.test=[]"]


def test_one_block_each_is_exchanged():
    ours = load_config(BCCD).model
    plain = load_config(HERE.parents[1] / "configs/bccd/retinanet_r18_fpn_bccd.yaml").model
    same = {"backbone", "neck", "preprocessor", "weights"}
    assert all(ours[key] == plain[key] for key in same)
    names = [ours[key].name for key in ("matcher", "cls_loss", "box_loss")]
    assert names == ["ATSSMatcher", "QualityFocalLoss", "GIoULoss"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_trains_as_a_whole_and_in_parts(tmp_path, accumulate):
    overrides = [*SHAPES, "data.batch_size=2", "data.num_workers=0", "solver.max_iter=2"]
    overrides += [f"train.accumulate={accumulate}", f"output_dir={tmp_path}", "train.hooks=[]"]
    trainer = build_trainer(load_config(BCCD, overrides))
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert all(math.isfinite(float(value)) for value in trainer.metrics.values())
    assert trainer.metrics["num_positives"] > 2
    unchanged = [n for n, p in trainer.model.named_parameters() if torch.equal(p, before[n])]
    assert unchanged == []


def test_a_mistake_in_the_config_is_explained():
    with pytest.raises(ConfigError, match="did you mean 'top_k'"):
        load_config(BCCD, ["model.matcher.topk=9"])
