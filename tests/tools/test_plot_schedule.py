"""tools/plot_schedule.py: curves before a run, as a table, a picture and a CSV."""

import pathlib
import sys

import cv2
import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / "configs"


QUICK = "data.train=[{name: Shapes, num_images: 64, image_size: [64, 64]}]"


def plot(run_tool, *arguments, config=CONFIGS / "quickstart.yaml"):
    own = [QUICK] if config.stem == "quickstart" else []
    return run_tool("plot_schedule", "--config-file", config, *own, *arguments)


def test_the_table_of_the_quickstart_has_its_epochs(run_tool):
    code, out, err = plot(run_tool, "--no-picture")
    assert code == 0, err
    assert "AdamW, WarmupCosineLR: 1000 iterations of 8 images, 8000 in all, 125 epochs" in out
    assert any(line.split()[:2] == ["100", "12.50"] for line in out.splitlines())


@pytest.mark.parametrize("output", ["a.png", "folder/b.svg"])
def test_a_picture_is_drawn(run_tool, tmp_path, output):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    overrides = ["solver.layer_decay=0.9", "train.ema.decay=0.99", "test.eval_period=100"]
    code, out, err = plot(run_tool, "--output", tmp_path / output, *overrides)
    assert code == 0, err
    assert f"wrote {tmp_path / output}" in out
    if output.endswith(".png"):
        picture = cv2.imread(str(tmp_path / output))
        assert picture.shape[0] > 600
        # Not a white sheet: axes and curves are a few percent of it.
        assert 0.01 < (picture < 200).any(axis=2).mean() < 0.5
    else:
        text = (tmp_path / output).read_text()
        assert text.count("<path") > 20


def test_without_the_data_there_are_iterations_but_no_epochs(run_tool, tmp_path, monkeypatch):
    monkeypatch.setenv("DETLITE_DATASETS", str(tmp_path))
    config = CONFIGS / "retinanet/retinanet_r50_fpn_1x_coco.yaml"
    code, out, err = plot(run_tool, "--no-picture", config=config)
    assert code == 0, err
    assert "the training data cannot be counted, so there are no epochs" in err
    assert "epoch" not in out
    turns = [line.split() for line in out.splitlines() if line.endswith("x 0.1")]
    assert turns == [["60000", "0.001", "x", "0.1"], ["80000", "0.0001", "x", "0.1"]]


def test_the_run_s_own_batch_size_is_drawn_with_the_arithmetic(run_tool):
    overrides = ["solver.reference_batch_size=16", "data.batch_size=4", "solver.max_iter=100"]
    code, out, err = plot(run_tool, "--no-picture", *overrides)
    assert code == 0, err
    assert "k = 4/16 = 0.25" in err
    assert "400 iterations of 4 images, 1600 in all" in out


def test_the_groups_are_printed_once(run_tool):
    rules = "solver.parameter_groups=[{match: 'head.*', lr_factor: 0.5}]"
    _, out, err = plot(run_tool, "--no-picture", rules)
    assert (out + err).count(" decay\n") == 1
    assert "x 0.5" in out


def test_a_csv_is_written(run_tool, tmp_path):
    code, out, _ = plot(run_tool, "--no-picture", "--csv", tmp_path / "x.csv", "solver.max_iter=9")
    assert code == 0
    assert f"wrote {tmp_path / 'x.csv'}" in out
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 10


def test_without_matplotlib_the_table_comes_and_the_command_for_it(run_tool, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = plot(run_tool)
    assert code == 2
    assert "1000 iterations" in out
    assert "a picture needs matplotlib, which is not installed: pip install matplotlib" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.foo"], "the picture x.foo cannot be written: Format 'foo'"),
        (["--no-picture", "--csv", "no/such/folder/x.csv"], "--csv no/such/folder/x.csv cannot be"),
        (["solver.freeze=[backbone]"], "'backbone' is a module, and 'backbone.*' matches its"),
        (["solver.layer_decay=2"], "key 'layer_decay' must be a number > 0 and <= 1, got 2"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(run_tool, tmp_path, monkeypatch, arguments, message):
    if "--output" in arguments:
        pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    monkeypatch.chdir(tmp_path)
    code, _, err = plot(run_tool, *arguments)
    assert code == 2
    assert message in err
