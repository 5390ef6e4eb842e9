import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from detlite.modeling.sync_batch_norm import SyncBatchNorm

# What several processes make of it is in tests/engine/test_parallel.py.


@pytest.fixture
def group_of_one(tmp_path):
    """A process group of this process alone, as torchrun makes it for one."""
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def check_against_batch_norm(dtype=torch.float32):
    torch.manual_seed(0)
    norm, peer = SyncBatchNorm(4), nn.BatchNorm2d(4)
    assert norm.state_dict().keys() == peer.state_dict().keys()
    results = []
    for module in (norm, peer):
        x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
        x = x.to(dtype).requires_grad_()
        y = module(x)
        y.float().square().sum().backward()
        evaluated = copy.deepcopy(module).eval()(x)
        results.append([y, x.grad, module.weight.grad, *module.state_dict().values(), evaluated])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_process_has_a_plain_batch_norm(dtype):
    check_against_batch_norm(dtype)


def test_a_group_of_one_process_has_a_plain_batch_norm(group_of_one):
    check_against_batch_norm()
