import pytest
import torch

from detlite import ConfigError
from detlite.engine.device import select_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_one_gpu_can_be_chosen(two_gpus):
    assert select_device("cuda:1") == torch.device("cuda", 1)
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "cuda:9", "gpu", "cpu:0", "cuda:x", "mps"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(two_gpus, name):
    with pytest.raises(ConfigError, match=rf"device is '?{name}'?.* cuda:0, cuda:1"):
        select_device(name)


def test_one_gpu_for_several_processes_is_refused(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one GPU for 2 processes; with device=cuda each"):
        select_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert select_device("cuda:0") == torch.device("cuda", 0)


def test_a_gpu_without_any_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is cuda:0, but torch sees no GPU"):
        select_device("cuda:0")
