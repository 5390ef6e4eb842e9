"""tools/export_weights.py, and the peers' files that it writes in the other tools."""

import json
import pathlib

import numpy as np
import pytest

from detlite import build_trainer, load_config
from detlite.visualization import write_picture

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs/quickstart.yaml"
TINY = [
    "data.train=[{name: Shapes, num_images: 4, image_size: [64, 64]}]",
    "data.test=[{name: Shapes, num_images: 3, seed: 9, image_size: [64, 64]}]",
    "data.num_workers=0",
    "data.batch_size=2",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "model.postprocessor.score_thresh=0.0",
    "train.hooks=[]",
    "train.precision=fp32",
    "test.precision=fp32",
]
FILES = {"detectron2": "a.pkl", "torchvision": "b.pth", "mmdet": "c.pth"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tiny run."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [*TINY, "solver.max_iter=2", f"output_dir={folder}"]
    build_trainer(load_config(QUICKSTART, overrides)).train()
    return folder


def results_of(folder):
    return json.loads((folder / "inference/shapes_9/coco_instances_results.json").read_text())


@pytest.mark.parametrize(("file_format", "name"), FILES.items())
def test_a_file_for_a_peer_is_evaluated_and_drawn_like_the_checkpoint_that_it_was_made_of(
    file_format, name, run, run_tool, tmp_path
):
    weights = tmp_path / name
    arguments = ["--weights", run / "model_final.pth", "--format", file_format]
    code, _, err = run_tool("export_weights", *arguments, "--output", weights)
    assert code == 0, err
    assert "with 3 classes: circle, triangle, cross" in err
    assert "it is read by" in err
    # The quickstart's anchors lie elsewhere in their cells than any peer's.
    assert "anchor_generator.offset: 0.0 there, 0.5 here" in err
    config = ["--config-file", QUICKSTART]
    evaluate = [*config, "--eval-only", "--weights", weights, f"output_dir={tmp_path / 'out'}"]
    code, _, err = run_tool("train_net", *evaluate, *TINY)
    assert code == 0, err
    assert "was made with other settings than the config's" in err
    assert results_of(tmp_path / "out") == results_of(run)

    write_picture(tmp_path / "photo.png", np.full((64, 64, 3), 200, np.uint8))
    draw = ["--input", tmp_path / "photo.png", "--output", tmp_path / "drawn"]
    names = "model.weights_class_names=[circle, triangle, cross]"
    code, _, err = run_tool("visualize", "--weights", weights, *config, *draw, *TINY, names)
    assert code == 0, err
    assert (tmp_path / "drawn/photo.jpg").is_file()


def test_safetensors_need_no_config(run, run_tool, tmp_path):
    weights = tmp_path / "model.safetensors"
    arguments = ["--weights", run / "model_final.pth", "--format", "safetensors"]
    assert run_tool("export_weights", *arguments, "--output", weights)[0] == 0
    draw = ["--dataset", "test", "--output", tmp_path / "drawn"]
    code, _, err = run_tool("visualize", "--weights", weights, *draw)
    assert code == 0, err
    assert len(list((tmp_path / "drawn").iterdir())) == 3


def test_mistakes_are_told(run, run_tool, tmp_path):
    weights = tmp_path / "model.pkl"
    arguments = ["--weights", run / "model_final.pth", "--format", "detectron2"]
    assert run_tool("export_weights", *arguments, "--output", weights)[0] == 0
    code, _, err = run_tool("export_weights", *arguments, "--output", weights)
    assert code == 2
    assert "is there already; --overwrite replaces it" in err
    assert run_tool("export_weights", *arguments, "--output", weights, "--overwrite")[0] == 0

    for output, message in (
        (tmp_path, "is a folder"),
        (weights / "below.pkl", "cannot be written"),
    ):
        code, _, err = run_tool("export_weights", *arguments, "--output", output, "--overwrite")
        assert code == 2
        assert message in err

    again = ["--weights", weights, "--format", "mmdet", "--output", tmp_path / "model.pth"]
    code, _, err = run_tool("export_weights", *again)
    assert code == 2
    assert "holds a RetinaNet of detectron2, which does not say the config of its model" in err
    draw = ["--input", QUICKSTART, "--output", tmp_path / "drawn"]
    code, _, err = run_tool("visualize", "--weights", weights, *draw)
    assert code == 2
    assert "give the config of such a model" in err
