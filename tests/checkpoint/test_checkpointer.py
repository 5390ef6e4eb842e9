"""A checkpoint says what it is, reading one runs no code, and its weights fit or are refused."""

import os
import pickle

import pytest
import torch
from torch import nn

from detlite.checkpoint import (
    Checkpointer,
    inference_weights,
    load_checkpoint,
    load_weights,
)
from detlite.errors import CheckpointError


def checkpointer(folder, keep=2):
    return Checkpointer(folder, keep=keep, identity={"config": "seed: 0\n", "class_names": ["a"]})


def test_a_checkpoint_holds_what_was_saved_and_knows_itself(tmp_path):
    path = checkpointer(tmp_path).save("model_final", {"model": {"w": torch.arange(3)}})
    content = load_checkpoint(path)
    assert content["model"]["w"].tolist() == [0, 1, 2]
    assert (content["config"], content["class_names"]) == ("seed: 0\n", ["a"])


@pytest.mark.parametrize("keep_bytes", [0, 10, 1000, -200])
def test_a_file_cut_short_is_an_error_with_its_name(tmp_path, keep_bytes):
    path = checkpointer(tmp_path).save("model_final", {"model": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(CheckpointError, match=r"model_final\.pth"):
        load_checkpoint(path)


def test_a_missing_file_is_told_with_its_neighbours(tmp_path):
    checkpointer(tmp_path).save("model_final", {"model": {}})
    with pytest.raises(CheckpointError, match=r"no checkpoint .*model_finale.pth.*model_final.pth"):
        load_checkpoint(tmp_path / "model_finale.pth")


def test_a_foreign_file_is_told_by_what_it_holds(tmp_path):
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint of detlite .*state_dict, epoch"):
        load_checkpoint(tmp_path / "foreign.pth")


class Malicious:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(
    pickle.dumps(content))], ids=["torch", "pickle"])  # fmt: skip
def test_loading_runs_no_code(tmp_path, save):
    planted = tmp_path / "planted"
    save({"format": "detlite", "model": Malicious(str(planted))}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil.pth"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not planted.exists()


def test_inference_takes_the_moving_average_where_there_is_one():
    assert inference_weights({"model": {"w": 1}, "ema": {"w": 2}}) == {"w": 2}
    assert inference_weights({"model": {"w": 1}}) == {"w": 1}


def test_weights_of_another_architecture_are_refused_and_the_model_left_alone():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4), "fc.weight": torch.ones(1)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, weights, "resnet.pth")
    message = str(caught.value)
    assert "resnet.pth is of another architecture: 1 of the model's 4 tensors fit" in message
    assert "1.weight" in message
    assert "fc.weight" in message
    assert "0.bias (4,) (the model's is (3,))" in message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
