"""The mistakes of a newcomer, through the real command: each message says what to mend."""

import subprocess
import sys

import pytest
import torch

from detlite import build_model, load_config
from detlite.checkpoint import save_atomically


def mistake(train, *arguments):
    """The message of a run that must end with one, without a traceback."""
    code, _, said = train(*arguments)
    assert code == 2, said
    assert "Traceback" not in said
    _, error, message = said.rpartition("error: ")
    assert error
    return message


def test_without_a_mistake_it_trains_and_evaluates(project, train):
    code, _, said = train()
    assert code == 0, said
    assert (project.folder / "run/model_final.pth").is_file()


def test_a_misspelt_component(project, train):
    project.change("name: ResNet,", "name: Resnet,")
    message = mistake(train)
    assert (
        f"{project.line('Resnet')}: no backbone named 'Resnet'; did you mean 'ResNet'?" in message
    )
    assert "Known: " in message
    assert "imports" in message


def test_a_misspelt_key(project, train):
    project.change("num_convs", "num_conv")
    message = mistake(train)
    assert f"{project.line('num_conv')}: head 'RetinaNetHead' has no 'num_conv'" in message
    assert "did you mean 'num_convs'? It has" in message


def test_a_wrong_type(project, train):
    project.change("batch_size: 2", "batch_size: two")
    assert (
        f"{project.line('batch_size')}: section 'data' key 'batch_size' must be an integer >= 1 "
        "and <= 1000000, got 'two' (str)" in mistake(train)
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "num_convs: 1",
            "num_convs: 1, num_classes: 2",
            "'RetinaNetHead' gets 'num_classes' computed, from the classes of `data.train`; "
            "remove it (value: 2)",
        ),
        (
            "out_channels: 16",
            "input_shape: 3",
            "'FPN' gets 'input_shape' computed, from the backbone's output_shape(); remove it",
        ),
        (
            "GridAnchorGenerator",
            "GridAnchorGenerator, strides: [8]",
            "gets 'strides' computed, from the neck's output_shape(); remove it (value: [8])",
        ),
    ],
)
def test_a_key_that_is_computed(project, train, old, new, message):
    project.change(old, new)
    said = mistake(train)
    assert project.line(new) in said
    assert message in said


def test_a_missing_image_folder(project, train):
    project.change(f"test.json, images: {project.folder}/images", "test.json, images: pix")
    message = mistake(train)
    assert "pix" in message
    assert "$DETLITE_DATASETS" in message


def test_a_missing_image_file(project, train):
    (project.folder / "images/3.jpg").unlink()
    message = mistake(train)
    assert f"{project.folder}/images" in message
    assert "3.jpg" in message


def test_a_missing_annotation_file(project, train):
    (project.folder / "train.json").unlink()
    assert f"cannot read the annotations '{project.folder}/train.json'" in mistake(train)


def test_a_broken_json(project, train):
    path = project.folder / "train.json"
    path.write_text(path.read_text()[:-40])
    message = mistake(train)
    assert f"annotations '{path}' are not valid JSON: " in message
    assert "line 1 column" in message


def test_annotations_that_name_an_unknown_image(project, train):
    content = project.annotations(6)
    content["annotations"][3]["image_id"] = 99
    project.write("train.json", content)
    assert (
        "the image_id of 1 of 6 annotations is not among `images`: 99 (annotations 13)"
        in mistake(train)
    )


def test_a_class_count_that_does_not_fit_the_data(train):
    assert (
        "data.num_classes is 80, but 'train' has 2 classes: ball, cube. Remove the key, the number "
        "is taken from the data" in mistake(train, "data.num_classes=80")
    )


def test_test_data_with_other_classes_than_the_training_data(project, train):
    content = project.annotations(2)
    content["categories"][1]["name"] = "dice"
    project.write("test.json", content)
    message = mistake(train)
    for fact in (
        "data.test",
        "'test'",
        "dice",
        "(ball, dice)",
        "(ball, cube)",
        "`classes: [ball]`",
    ):
        assert fact in message


ONE_EPOCH = ["solver.max_iter=3", "data.aspect_ratio_grouping=false"]


@pytest.fixture
def truncated(project):
    """Image 4, which ends in the middle."""
    file = project.folder / "images/4.jpg"
    file.write_bytes(file.read_bytes()[:400])
    return file


def test_a_truncated_image_stops_training(train, truncated):
    message = mistake(train, *ONE_EPOCH)
    assert f"image file '{truncated}' is broken: " in message
    assert "data.broken_image=skip" in message


def test_a_truncated_image_can_be_skipped(project, train, truncated):
    code, _, said = train(*ONE_EPOCH, "data.broken_image=skip")
    assert code == 0, said
    warning = f"WARNING skipped an image, another takes its place: image file '{truncated}' is br"
    assert warning in said
    assert warning in (project.folder / "run/log.txt").read_text()


@pytest.fixture
def resnet18(project):
    """A checkpoint of the project's own model."""
    model = build_model(load_config(project.config), ["ball", "cube"])
    path = project.folder / "resnet18.pth"
    save_atomically({"format": "detlite", "version": 1, "model": model.state_dict()}, path)
    return path


def test_a_checkpoint_of_another_architecture(train, resnet18):
    message = mistake(train, f"model.weights={resnet18}", "model.backbone.depth=34")
    assert f"% of the model's backbone is in {resnet18} (at least 90 % are needed" in message
    assert "2-2-2-2 blocks in its stages, the model's 3-4-6-3: set model.backbone.depth" in message


def test_a_checkpoint_of_other_classes_is_no_mistake_in_training_but_in_evaluation(
    project, train, resnet18
):
    content = project.annotations(6)
    content["categories"].append({"id": 3, "name": "cone"})
    project.write("train.json", content)
    config = load_config(project.config, [f"model.weights={resnet18}", "data.test=[]"])
    assert build_model(config).class_names == ("ball", "cube", "cone")
    project.write("test.json", content)
    message = mistake(train, f"--weights={resnet18}", "--eval-only")
    assert "2 of the model's 141 tensors are not in" in message
    assert "head.cls_score.weight" in message


def test_a_checkpoint_that_is_not_there(train, resnet18):
    message = mistake(train, f"model.weights={resnet18.with_name('resnet.pth')}")
    assert "resnet.pth; in that folder: resnet18.pth" in message


def test_a_checkpoint_of_something_else(project, train):
    path = project.folder / "other.pth"
    torch.save({"epoch": 3, "state_dict": {}}, path)
    message = mistake(train, f"model.weights={path}")
    assert "other.pth is no checkpoint with weights that detlite knows (it holds epoch, " in message


def run_command(project, *arguments):
    command = [sys.executable, str(project.tool), "--config-file", str(project.config), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_itself_ends_with_code_2_and_no_traceback(project):
    done = run_command(project, "solver.max_itr=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {project.config}: a mistake in the config\n  - override")
    assert "did you mean 'max_iter'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_traceback_is_shown_with_debug(project):
    done = run_command(project, "solver.max_itr=3", "--debug")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "did you mean 'max_iter'?" in done.stderr


def test_the_printed_config_can_be_loaded(project, train):
    code, printed, _ = train("--print-config", "solver.max_iter=1")
    assert code == 0
    path = project.folder / "printed.yaml"
    path.write_text(printed)
    assert load_config(path) == load_config(project.config, ["solver.max_iter=1"])
