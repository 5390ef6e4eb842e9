"""Boxes for the tests of the ops."""

import pytest
import torch
from torch import Tensor


@pytest.fixture
def make_boxes():
    """A function that draws boxes (N, 4) on a plane of 200 pixels."""

    def make(num_boxes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        corner = torch.rand(num_boxes, 2, generator=generator, dtype=torch.float64) * 150
        size = 1 + torch.rand(num_boxes, 2, generator=generator, dtype=torch.float64) * 49
        return torch.cat((corner, corner + size), dim=1).to(dtype)

    return make


@pytest.fixture
def make_clusters(make_boxes):
    """A function that draws boxes (N, 4) of which many lie almost on top of each other."""

    def make(num_boxes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        centers = make_boxes(max(num_boxes // 20, 1), seed, dtype)
        generator = torch.Generator().manual_seed(seed + 1)
        picked = torch.randint(len(centers), (num_boxes,), generator=generator)
        noise = torch.randn(num_boxes, 4, generator=generator, dtype=torch.float64) * 0.2
        return centers[picked] + noise.to(dtype)

    return make


@pytest.fixture
def bad_boxes() -> Tensor:
    """One box of every kind that overlaps nothing."""
    nan, inf = float("nan"), float("inf")
    return torch.tensor(
        [
            [nan, 0, 10, 10],
            [0, 0, nan, 10],
            [0, 0, inf, 10],
            [-inf, -inf, inf, inf],
            [10, 0, 0, 10],  # inverted in x
            [10, 10, 0, 0],  # inverted in both: its area would be positive
            [5, 0, 5, 10],  # no width
            [5, 5, 5, 5],  # a point
            [0, 0, 1e-30, 1e-30],  # an area that float32 rounds to 0
            [0, 0, 1e30, 1e30],  # an area beyond float32
        ]
    )
