"""A bundle on the disk: what goes in comes out, what is damaged is refused, pictures are drawn."""

import pathlib

import cv2
import numpy as np
import pytest
import torch

from detlite.checkpoint import Checkpointer, load_checkpoint
from detlite.engine.replay import StepBundle, read_bundle, write_bundle
from detlite.engine.replay.bundle import packable
from detlite.engine.replay.recording import module_norms
from detlite.engine.replay.writing import bundles_of
from detlite.errors import CheckpointError
from detlite.structures import BatchShare, Instances
from detlite.utils.random_state import RandomState


class Odd:
    """What no file can hold."""


def a_bundle(**changes):
    image = torch.arange(3 * 8 * 10, dtype=torch.float32).view(3, 8, 10)
    truth = Instances(
        (8, 10),
        gt_boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        gt_classes=torch.tensor([1]),
        names=["a"],
    )
    sample = {
        "image": image,
        "instances": truth,
        "file_name": "folder/a.jpg",
        "image_id": np.int64(7),
        "height": 8,
        "scale": np.float32(0.5),
        "crop": (1, 2),
        "map": np.eye(2),
        "nothing": None,
    }
    values = {
        "config": "seed: 1",
        "class_names": ["x", "y"],
        "iteration": 12,
        "rank": 1,
        "world_size": 2,
        "device": "cpu",
        "precision": "bf16",
        "scale": 2.0,
        "threads": 1,
        "deterministic": False,
        "weights": {"w": torch.tensor([float("nan"), 1.0])},
        "other_buffers": {"b": torch.tensor([3])},
        "frozen": ["w"],
        "in_eval": [""],
        "parts": [[sample], [{**sample, "image": image.to(torch.uint8), "file_name": "b.png"}]],
        "shares": [BatchShare((8, 12), torch.tensor([0.5])), None],
        "part_losses": [{"loss": torch.tensor(float("inf"))}, {"loss": torch.tensor(1.0)}],
        "metrics": {"loss": torch.tensor(float("inf"), dtype=torch.float64)},
        "gradient_norm": torch.tensor(2.0),
        "why": ["loss"],
        "groups": [{"name": "all", "lr": 0.1, "parameters": 2}],
        "modules": {"": {"weight": float("nan"), "gradient": 2.0}},
        "bad_weights": {"w": 1},
        "bad_gradients": {},
        "left_out": [],
        "random": RandomState.capture(),
    }
    return StepBundle(**{**values, **changes})


@pytest.fixture
def folder(tmp_path):
    """A bundle's."""
    return write_bundle(a_bundle(), tmp_path)


def test_what_goes_in_comes_out(tmp_path):
    written = a_bundle()
    drawn = torch.rand(3), np.random.rand()
    folder = write_bundle(written, tmp_path)
    assert folder == tmp_path / "iter_0000012_rank1"
    for path in (folder, folder / "bundle.pth"):
        read = read_bundle(path)
        for name in ("iteration", "rank", "scale", "frozen", "groups", "bad_weights", "why"):
            assert getattr(read, name) == getattr(written, name), name
        assert read.weights["w"].isnan().tolist() == [True, False]
        assert read.metrics["loss"].dtype == torch.float64
        share, nothing = read.shares
        assert (share.canvas, share.weights.tolist(), nothing) == ((8, 12), [0.5], None)
    sample = read.parts[0][0]
    assert torch.equal(sample["image"], written.parts[0][0]["image"])
    truth = sample["instances"]
    assert truth.image_size == (8, 10)
    assert truth.gt_boxes.tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert truth.names == ["a"]
    assert (sample["image_id"], sample["scale"], sample["nothing"]) == (7, 0.5, None)
    assert sample["map"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    read.random.restore()
    assert torch.equal(torch.rand(3), drawn[0])
    assert np.random.rand() == drawn[1]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.3, 0.9, -1])
def test_a_bundle_that_was_cut_is_refused(folder, kept):
    file = folder / "bundle.pth"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"bundle\.pth"):
        read_bundle(folder)


def test_a_flipped_bit_is_found_wherever_it_is(folder):
    file = folder / "bundle.pth"
    content = file.read_bytes()
    for place in np.linspace(0, len(content) - 1, 25).astype(int):
        changed = bytearray(content)
        changed[place] ^= 16
        file.write_bytes(changed)
        with pytest.raises(CheckpointError):
            read_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"parts": None},
        {"parts": []},
        {"parts": [[{"image": 3}], [{"image": torch.zeros(1)}]]},
        {"parts": [[{"image": torch.zeros(1), "instances": {"image_size": 3, "fields": {}}}]] * 2},
        {"shares": [None]},
        {"shares": [{"canvas": [1, 2]}, None]},
        {"model": {"w": "text"}},
        {"model": 3},
        {"random": {}},
        {"threads": "1"},
        {"in_eval": 3},
        {"part_losses": [{}]},
    ],
)  # fmt: skip
def test_a_bundle_that_someone_has_changed_is_refused(folder, change):
    content = {**load_checkpoint(folder / "bundle.pth"), **change}
    Checkpointer(folder, keep=1, identity={}).save("bundle", content)
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        read_bundle(folder)


def test_what_is_no_bundle_is_told(tmp_path):
    Checkpointer(tmp_path, keep=1, identity={}).save("model_final", {"model": {}})
    with pytest.raises(CheckpointError, match="no bundle of a step; those lie in non_finite/"):
        read_bundle(tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*bundle\.pth"):
        read_bundle(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_bundle(tmp_path / "nowhere")


def test_what_no_file_can_hold_is_not_packed():
    held = [None, 1, 2.0, True, "a", torch.zeros(1), np.eye(2), {"a": [1, (2,)]}, np.float32(1)]
    assert [value for value in held if not packable(value)] == []
    refused = [Odd(), {1: 2}, [Odd()], len, np.array(["a"]), np.array([Odd()]), b"raw"]
    assert [value for value in refused if packable(value)] == []


def test_bundles_are_counted_for_their_rank_and_never_written_over(tmp_path):
    for _ in range(2):
        write_bundle(a_bundle(), tmp_path)
    write_bundle(a_bundle(rank=12), tmp_path)
    names = [path.name for path in bundles_of(tmp_path, 1)]
    assert names == ["iter_0000012_rank1", "iter_0000012_rank1_2"]
    assert len(bundles_of(tmp_path, 12)) == 1
    assert bundles_of(tmp_path, 2) == []
    assert list(tmp_path.glob(".*")) == []


def test_pictures_show_boxes_and_what_is_not_finite(tmp_path):
    bundle = a_bundle()
    # Away from the box and its label.
    bundle.parts[0][0]["image"][1, 7, 9] = float("nan")
    bundle.parts[0][0]["image"][:, 6, 9] = float("inf")
    folder = write_bundle(bundle, tmp_path)
    assert sorted(path.name for path in (folder / "images").iterdir()) == [
        "0_00_a.png",
        "1_00_b.png",
    ]
    picture = cv2.imread(str(folder / "images/0_00_a.png"))
    side = 48  # of a pixel, as the shorter side of 8 becomes 384
    assert (picture[6 * side :, 9 * side :] == (255, 0, 255)).all()
    assert not (picture[5 * side : 6 * side, 9 * side :] == (255, 0, 255)).all(axis=2).any()
    other = cv2.imread(str(folder / "images/1_00_b.png"))
    assert not np.array_equal(picture, other)


def test_a_long_name_is_shortened_and_a_picture_that_fails_loses_nothing_else(
    tmp_path, monkeypatch
):
    sample = {**a_bundle().parts[0][0], "file_name": "x" * 300 + ".jpg"}
    bundle = a_bundle(parts=[[sample], [sample]])
    (picture, _) = sorted((write_bundle(bundle, tmp_path) / "images").iterdir())
    assert picture.name == f"0_00_{'x' * 100}.png"
    monkeypatch.setattr("cv2.imencode", lambda *arguments: (False, None))
    assert read_bundle(write_bundle(bundle, tmp_path)).iteration == 12


@pytest.mark.parametrize("shape", [(5, 8, 10), (8, 10), (3, 0, 0)])
def test_images_that_are_no_pictures_are_left_out(tmp_path, shape, caplog):
    sample = {"image": torch.full(shape, float("nan")), "file_name": "strange.tif"}
    bundle = a_bundle(parts=[[sample], [sample]])
    folder = write_bundle(bundle, tmp_path)
    assert not (folder / "images").exists()
    assert "strange.tif of the bundle cannot be drawn" in caplog.text
    assert read_bundle(folder).parts[0][0]["image"].shape == shape


def test_the_report_says_what_a_person_asks_first(folder):
    text = (folder / "report.txt").read_text()
    for part in (
        "Iteration 12, rank 1 of 2, cpu, bf16, gradient scale 2",
        "Not finite: loss",
        "w: 1 entries",
        "part 0: folder/a.jpg (id 7, 3x8x10, 1 boxes)",
        "part 1: b.png",
        "all      0.1",
        "(the model)  nan",
    ):
        assert part in text, text


def test_norms_are_those_of_each_modules_own_parameters():
    model = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3e30], [0.0]]))
        model[0].bias.copy_(torch.tensor([4e30, 0.0]))
    model[0].bias.grad = torch.tensor([0.0, float("inf")])
    norms = module_norms(model)
    assert list(norms) == ["0"]
    assert norms["0"]["weight"] == pytest.approx(5e30)
    assert norms["0"]["gradient"] == float("inf")


def test_bundles_of_a_folder_that_is_not_there_are_none():
    assert bundles_of(pathlib.Path("/nowhere"), 0) == []


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        ({"gt_class": torch.tensor(1)}, "3x8x10, y)"),
        ({"gt_probs": torch.tensor([0.25, 0.75])}, "3x8x10, 0.25 x + 0.75 y)"),
        ({"gt_class": torch.tensor(9)}, "3x8x10)"),
    ],
)
def test_the_report_of_a_classifier_says_the_classes(tmp_path, truth, told):
    sample = {"image": torch.zeros(3, 8, 10), "file_name": "a.jpg", "image_id": "a", **truth}
    folder = write_bundle(a_bundle(parts=[[sample], [sample]]), tmp_path)
    assert told in (folder / "report.txt").read_text()
    for key, value in truth.items():
        assert torch.equal(read_bundle(folder).parts[0][0][key], value)
