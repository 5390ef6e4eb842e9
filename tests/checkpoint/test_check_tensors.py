"""Weights are finite floating-point tensors; what else a file holds for weights is told."""

import numpy as np
import pytest
import torch

from detlite.checkpoint.safe_unpickle import check_tensors
from detlite.errors import CheckpointError


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_tensors_become_float32(dtype):
    checked = check_tensors({"w": torch.tensor([[0.5, -2], [1, 3]], dtype=dtype).t()}, "x.pth")
    assert checked["w"].dtype == torch.float32
    assert checked["w"].is_contiguous()
    assert checked["w"].tolist() == [[0.5, 1], [-2, 3]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_counts_of_batches_stay_integers(dtype):
    name = "bn.num_batches_tracked"
    checked = check_tensors({name: torch.tensor(5, dtype=dtype)}, "x.pth")
    assert checked[name].dtype == torch.int64
    assert checked[name] == 5


def test_a_small_expanded_tensor_is_taken():
    checked = check_tensors({"w": torch.ones(1).expand(256)}, "x.pth")
    assert checked["w"].tolist() == [1] * 256


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.tensor([1, float("nan"), float("inf")]), "NaN or infinity at 2 of 3 places"),
        (torch.tensor(1e300, dtype=torch.float64), "NaN or infinity at 1 of 1 places"),
        (torch.tensor([float("-inf")]).half(), "NaN or infinity at 1 of 1 places"),
        (torch.arange(3), "int64"),
        (torch.arange(3).to(torch.uint8), "uint8"),
        (torch.ones(2, dtype=torch.bool), "bool"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "on the device meta"),
        (torch.ones(1).expand(10**6, 10**6, 10**6), "of which the file holds only a part"),
        (torch.ones(1).expand(2**19), "of which the file holds only a part"),
        (np.ones(2), "a ndarray"),
        ("text", "a str"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_weight_is_told(value, told):
    with pytest.raises(CheckpointError) as caught:
        check_tensors({"good": torch.ones(2), "evil": value}, "x.pth")
    assert f"x.pth: 1 of its 2 tensors are no weights: evil ({told}" in str(caught.value) or (
        told in str(caught.value) and "evil (shape" in str(caught.value)
    )


def test_at_most_six_wrong_tensors_are_listed():
    with pytest.raises(CheckpointError) as caught:
        check_tensors({f"w{i}": i for i in range(9)}, "x.pth")
    assert "9 of its 9 tensors" in str(caught.value)
    assert "w5 (a int), ..." in str(caught.value)
    assert "w6" not in str(caught.value)
