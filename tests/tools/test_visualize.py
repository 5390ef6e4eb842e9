"""tools/visualize.py: pictures of detections and of annotations, and its errors."""

import json
import os
import pathlib

import cv2
import numpy as np
import pytest

from detlite import Predictor, build_trainer, load_config
from detlite.visualization import write_picture

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs/quickstart.yaml"
TINY = [
    "data.train=[{name: Shapes, num_images: 4}]",
    "data.test=[{name: Shapes, num_images: 3, seed: 9}]",
    "data.num_workers=0",
    "data.batch_size=2",
    "model.neck.out_channels=16",
    "solver.max_iter=1",
    "train.hooks=[]",
    # The CI's processor may have no bf16 arithmetic.
    "train.precision=fp32",
    "test.precision=fp32",
    "model.postprocessor.score_thresh=0.0",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of a tiny model."""
    folder = tmp_path_factory.mktemp("run")
    build_trainer(load_config(QUICKSTART, [*TINY, f"output_dir={folder}"])).train()
    return folder / "model_final.pth"


@pytest.fixture
def images(tmp_path):
    """Two images in a folder, one in a folder below, two of them of the same name."""
    pixels = np.full((50, 80, 3), 200, np.uint8)
    for name in ("in/a.jpg", "in/b.png", "in/deep/a.png"):
        write_picture(tmp_path / name, pixels)
    (tmp_path / "in/notes.txt").write_text("no image")
    return tmp_path / "in"


def drawn(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folders_files_and_patterns_are_drawn_without_a_config(
    run_tool, weights, images, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    code, _, _ = run_tool(
        "visualize", "--weights", weights, "--input", images / "a.jpg", images, "in/*.png",
        "--output", out, "--score-thresh", 0, "--batch-size", 2,
    )  # fmt: skip
    assert code == 0
    assert drawn(out) == ["a.jpg", "a_2.jpg", "b.jpg", "predictions.json"]
    assert cv2.imread(str(out / "b.jpg")).shape[1] >= 480


def test_an_unreadable_image_is_told_and_the_others_are_drawn(run_tool, weights, images, tmp_path):
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    code, _, err = run_tool(
        "visualize", "--weights", weights, "--input", images, "--output", tmp_path / "out"
    )
    assert code == 1
    *_, skipped, last = err.splitlines()
    assert "skipped files that are no images (1)" in skipped
    assert "notes.txt" in skipped
    assert "1 of 4 images could not be read" in last
    assert "broken.jpg" in last
    assert drawn(tmp_path / "out") == ["a.jpg", "a_2.jpg", "b.jpg", "predictions.json"]
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())["skipped"]
    assert entry["file_name"].endswith("broken.jpg")
    assert "is broken" in entry["reason"]


def test_predictions_are_written_beside_the_pictures(run_tool, weights, images, tmp_path):
    out = tmp_path / "out"
    code, _, _ = run_tool(
        "visualize", "--weights", weights, "--input", images, "--output", out, "--score-thresh", 0,
        "--device", "cpu", "--labels", "none", "--no-scores", "--line-width", 1,
    )  # fmt: skip
    assert code == 0
    content = json.loads((out / "predictions.json").read_text())
    assert content["class_names"] == ["circle", "triangle", "cross"]
    assert content["score_thresh"] == 0
    assert {entry["picture"] for entry in content["images"]} == {"a.jpg", "a_2.jpg", "b.jpg"}
    predictor = Predictor(weights)
    for entry in content["images"]:
        found = predictor(entry["file_name"])
        assert (entry["height"], entry["width"]) == found.image_size == (50, 80)
        assert len(entry["detections"]) == len(found) > 0
        for detection, box, score, k in zip(
            entry["detections"], found.pred_boxes, found.scores, found.pred_classes, strict=True
        ):
            x, y, width, height = detection["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(box.tolist(), abs=0.02)
            assert detection["score"] == pytest.approx(float(score), abs=1e-5)
            assert detection["class"] == content["class_names"][detection["category"]]
            assert detection["category"] == int(k)


def test_names_of_any_bytes_are_read_drawn_and_listed(run_tool, weights, tmp_path):
    name = os.fsdecode(b"caf\xe9\xff.png")
    write_picture(tmp_path / "in" / name, np.full((50, 80, 3), 200, np.uint8))
    out = tmp_path / "out"
    code, _, err = run_tool(
        "visualize", "--weights", weights, "--input", tmp_path / "in", "--output", out
    )
    assert code == 0
    assert "caf\\udce9\\udcff.png" in err
    assert drawn(out) == [os.fsdecode(b"caf\xe9\xff.jpg"), "predictions.json"]
    (entry,) = json.loads((out / "predictions.json").read_text())["images"]
    assert entry["file_name"] == str(tmp_path / "in" / name)


@pytest.mark.parametrize("below", ["", "/below"])
def test_an_output_that_is_a_file_is_told_before_anything_is_read(run_tool, tmp_path, below):
    (tmp_path / "out").write_text("mine")
    code, _, err = run_tool(
        "visualize", "--weights", "nowhere.pth", "--input", "a.jpg",
        "--output", f"{tmp_path}/out{below}",
    )  # fmt: skip
    assert code == 2
    assert "must be a folder" in err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a\0b", "a\ud800b"])
def test_an_output_that_no_file_can_be_called_is_told_before_anything_is_read(run_tool, name):
    code, _, err = run_tool(
        "visualize", "--weights", "nowhere.pth", "--input", "a.jpg", "--output", name
    )
    assert code == 2
    assert err.startswith("error: --output '")


FLOATS = "data.train_transforms=[{name: ResizeShortestEdge, min_size: 90, method: interpolate}]"


@pytest.mark.parametrize("extra", [[], ["--augmented"], ["--augmented", FLOATS]])
def test_annotations_of_a_config_are_drawn(run_tool, tmp_path, extra):
    out = tmp_path / "out"
    code, _, _ = run_tool(
        "visualize", "--config-file", QUICKSTART, "--dataset", "train", "--num-images", 3,
        "--output", out, *extra, *TINY,
    )  # fmt: skip
    assert code == 0
    assert len(drawn(out)) == 3


def test_ground_truth_is_drawn_beside_prediction(run_tool, weights, tmp_path):
    out = tmp_path / "out"
    code, _, _ = run_tool("visualize", "--weights", weights, "--dataset", "test", "--output", out)
    assert code == 0
    height, width = cv2.imread(str(out / drawn(out)[0])).shape[:2]
    assert width > 1.9 * height


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "a.jpg"], "--input needs --weights"),
        (["--weights", "nowhere.pth", "--input", "a.jpg"], "no checkpoint nowhere.pth"),
        (["--dataset", "train"], "--dataset needs --config-file"),
        ([], "give either --input"),
        (["--dataset", "train", "--config-file", "x", "--score-thresh", "3"], "got 3.0"),
    ],
)
def test_a_mistake_ends_with_its_message_and_code_2(run_tool, tmp_path, arguments, message):
    code, _, err = run_tool("visualize", "--output", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_an_input_that_names_nothing_is_told(run_tool, weights, tmp_path):
    code, _, err = run_tool(
        "visualize", "--weights", weights, "--input", "nowhere/*.jpg", "--output", tmp_path
    )
    assert code == 2
    assert "--input nowhere/*.jpg: there is no such file" in err


def test_a_classifier_writes_its_classes_onto_the_pictures(run_tool, class_folders, tmp_path):
    folder = class_folders({"cat/0.png": (60, 40), "dog/1.png": (40, 40)})
    overrides = [
        f"data.train=[{{name: ImageFolder, folder: {folder}}}]",
        "data.test=[]",
        "data.num_workers=0",
        "data.batch_size=2",
        "solver.max_iter=1",
        f"output_dir={tmp_path / 'run'}",
    ]
    config = QUICKSTART.parent / "classification/resnet18_trashnet150.yaml"
    build_trainer(load_config(config, overrides)).train()
    weights = ("--weights", tmp_path / "run/model_final.pth", "--output", tmp_path / "out")
    assert run_tool("visualize", *weights, "--input", folder)[0] == 0
    assert run_tool("visualize", *weights, "--dataset", "train", "--augmented")[0] == 0
    for name in ("0.jpg", "1.jpg", "00000_0.jpg", "00001_1.jpg"):
        picture = cv2.imread(str(tmp_path / "out" / name))
        # Images are of one colour, and plates with letters of many.
        assert len(np.unique(picture[:40].reshape(-1, 3), axis=0)) > 20
