"""What processes do together, each function to be run on every rank."""

import torch
from layouts import CPU, build, draw_batch, gradients_of
from torch import nn

from detlite.engine.parallel import (
    backward_context,
    batch_shares,
    parallel_model,
    split_batch,
    sync_model,
)
from detlite.errors import UserError
from detlite.modeling import MetaArch
from detlite.modeling.sync_batch_norm import SyncBatchNorm
from detlite.utils.distributed import gather_objects, rank


class Tower(nn.Module):
    """Layers that are used in another order than they are listed in, of 3 MB."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        sizes = (101, 307, 499, 211, 503, 97)
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip((97, *sizes), (*sizes, 97), strict=False)
        )
        order = torch.randperm(len(self.layers)).tolist()
        self.inner = nn.ModuleList(nn.Linear(97, 3001) for _ in order)
        self.outer = nn.ModuleList(nn.Linear(3001, 97) for _ in order)
        self.order = order

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        for i in self.order:
            x = self.outer[i](self.inner[i](x).tanh()).tanh()
        return x


def run_bit_equality():
    """Gradients of the same input before and after buckets are laid out anew, and by hand."""
    torch.manual_seed(100 + rank())
    x = torch.randn(8, 97)
    bare = Tower()
    bare(x).square().sum().backward()
    own = gradients_of(bare)
    everyone = gather_objects(own)
    expected = {name: value.clone() for name, value in everyone[0].items()}
    for other in everyone[1:]:
        for name in expected:
            expected[name] += other[name]
    model = parallel_model(bare, CPU)
    equal = []
    for _ in range(3):
        model.zero_grad(set_to_none=True)
        model(x).square().sum().backward()
        found = gradients_of(model)
        equal.append(all(torch.equal(found[name], expected[name]) for name in expected))
    return {"equal": equal, "rebuilt": model._has_rebuilt_buckets}


class Forgetful(nn.Module):
    """A model that does not use one of its parameters."""

    def __init__(self):
        super().__init__()
        self.used = nn.Parameter(torch.ones(3))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return (self.used * x).sum()


def message_of(call):
    """The message of the error that a call ends in."""
    try:
        call()
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def run_mistakes():
    """What is said of models and batches that cannot be trained by two processes."""
    model = build()
    batch = draw_batch()

    def forget():
        wrapped = parallel_model(Forgetful(), CPU)
        with backward_context(wrapped, True):
            wrapped(torch.ones(3)).backward()

    def share(samples, num_parts):
        return lambda: batch_shares(model, split_batch(samples, num_parts), CPU)

    return {
        "unused": message_of(forget),
        "too small": message_of(share(batch[:3][rank() :: 2], 2)),
        "nothing": message_of(share(batch[:1][rank() :: 2], 1)),
        "uneven": message_of(share(batch[: 1 + 2 * rank()], 1)),
    }


class Buffers(nn.Module):
    """Buffers of several types and shapes, other ones on each rank."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(rank())
        for name, value in {
            "flag": torch.tensor([rank() == 0, True, rank() == 1]),
            "mean": torch.randn(3, 5, generator=generator).T,
            "count": torch.tensor(rank() + 7),
            "narrow": torch.randn(3, generator=generator).bfloat16(),
            "wide": torch.randn(2, 2, generator=generator).double(),
            "nothing": torch.zeros(0),
        }.items():
            self.register_buffer(name, value)


def run_sync():
    """Buffers before and after they are made those of the first rank."""
    model = Buffers()
    before = {name: value.clone() for name, value in model.named_buffers()}
    sync_model(model)
    return before, dict(model.named_buffers())


NORMS = {
    "float64": ({}, torch.float64, 0.0),
    "far from 0": ({}, torch.float32, 1e4),
    "no momentum": ({"momentum": None}, torch.float64, 0.0),
    "no affine": ({"affine": False}, torch.float64, 0.0),
    "no statistics": ({"track_running_stats": False}, torch.float64, 0.0),
    "bfloat16": ({}, torch.bfloat16, 0.0),
}
SHAPES = [(2, 5, 4, 3), (1, 5, 6, 2), (4, 5, 1, 1)]


def run_norms():
    """Synchronized norms of unequal shares, two steps each; the test has the oracle."""
    results = {}
    for name, (keys, dtype, offset) in NORMS.items():
        generator = torch.Generator().manual_seed(rank())
        norm = SyncBatchNorm(5, **keys).to(dtype if dtype != torch.bfloat16 else torch.float32)
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(7))
            nn.init.uniform_(norm.bias, generator=torch.Generator().manual_seed(8))
        steps = []
        for _ in range(2):
            # Other values on every rank, around other means.
            x, gradient = torch.randn(2, *SHAPES[rank()], generator=generator, dtype=torch.float64)
            x = (x * (1 + rank()) + 3 * rank() + offset).to(dtype).requires_grad_()
            norm.zero_grad()
            y = norm(x)
            y.backward(gradient.to(dtype))
            gradients = [p.grad.clone() for p in norm.parameters()]
            steps.append((x.detach(), gradient, y.detach(), x.grad, gradients))
        state = {name: value.clone() for name, value in norm.state_dict().items()}
        evaluated = norm.eval()(steps[0][0]).detach()
        results[name] = {"steps": steps, "state": state, "evaluated": evaluated}
    return results


class Recorder(MetaArch):
    """Counts the rows of an image, and keeps the counts of the whole batch."""

    def forward(self, batch, share=None):
        return {}

    def count_targets(self, batch, canvas):
        return torch.tensor([sample["image"].shape[1] for sample in batch])

    def loss_weights(self, counts):
        self.counts = counts.tolist()
        return counts * 10.0


def run_order():
    """The counts that a model is given on 3 ranks, each with 2 parts, and the weights of parts."""
    model = Recorder()
    batch = [{"image": torch.zeros(3, 10 + i, 5)} for i in range(7)]
    shares = batch_shares(model, split_batch(batch[rank() :: 3], 2), CPU)
    return model.counts, [share.weights.tolist() for share in shares]
