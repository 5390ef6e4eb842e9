"""Which operator, module and node of the backward pass is blamed, on networks of a few lines."""

import pytest
import torch
from torch import nn

from detlite.engine.replay.gradient_trace import GradientTrace
from detlite.engine.replay.module_trace import ModuleTrace
from detlite.engine.replay.operator_trace import OperatorTrace
from detlite.engine.replay.statistics import TensorStats, stats_of
from detlite.structures import ImageList, Instances

NAN, INF = float("nan"), float("inf")


class Function(nn.Module):
    """Calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


class Net(nn.Module):
    """Functions one after the other, as modules."""

    def __init__(self, **functions):
        super().__init__()
        for name, function in functions.items():
            self.add_module(
                name, function if isinstance(function, nn.Module) else Function(function)
            )

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x


def watched(net, x, **known):
    """The module trace, and where the output of a network has its bad numbers from."""
    modules = ModuleTrace()
    operators = OperatorTrace(modules, {"x": x, **known})
    with modules.watch(net), operators:
        output = net(x)
    return modules, operators.origins_of(output)


def names(origins):
    return [(origin.kind, origin.module, origin.name) for origin in origins]


def test_the_first_operator_is_blamed_and_not_what_it_spoils():
    net = Net(shift=lambda x: x - 1, log=torch.log, exp=torch.exp, sum=torch.sum)
    modules, origins = watched(net, torch.tensor([0.5, 2.0]))
    assert names(origins) == [("operator", "log", "aten::log")]
    assert (origins[0].inputs.low, origins[0].outputs.nan) == (-0.5, 1)
    assert "test_traces.py" in origins[0].line
    assert modules.first_origin().path == "log"
    assert [call.path for call in modules.calls] == ["shift", "log", "exp", "sum", ""]


def test_what_is_infinite_on_purpose_and_never_arrives_is_not_blamed():
    def masked(x):
        scores = x.masked_fill(x < 0, -INF).softmax(dim=0)
        unused = torch.where(x > 0, x, x / 0)
        return torch.where(x > 0, unused, scores)

    net = Net(mask=masked, divide=lambda x: x / x[0].sub(x[0]))
    _, origins = watched(net, torch.tensor([1.0, -1.0, 2.0]))
    assert names(origins) == [("operator", "divide", "aten::div")]


def test_an_operator_that_overwrites_its_input_is_blamed():
    _, origins = watched(Net(add=lambda x: x + 0, log=torch.Tensor.log_), torch.tensor([-1.0]))
    assert names(origins) == [("operator", "log", "aten::log_")]
    assert (origins[0].inputs.low, origins[0].outputs.nan) == (-1.0, 1)


def test_the_parts_of_a_padded_batch_keep_their_origins():
    def pad(x):
        batch = torch.empty(3, 4).fill_(0)
        for slot, row in zip(batch, x, strict=True):
            slot[:2].copy_(row)
        return batch

    rows = [torch.tensor([1.0, NAN]), torch.tensor([1.0, 2.0]), torch.tensor([INF, 0.0])]
    modules = ModuleTrace()
    operators = OperatorTrace(modules, {f"row {i}": row for i, row in enumerate(rows)})
    with operators:
        total = pad(rows).sum()
    assert names(operators.origins_of(total)) == [("tensor", "", "row 0"), ("tensor", "", "row 2")]


@pytest.fixture
def garbage():
    """New memory holds NaN before it is written."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_memory_that_was_not_written_yet_is_not_blamed(garbage):
    def into_new_memory(x):
        buffer = torch.empty(2)
        assert buffer.isnan().all()
        buffer.copy_(x)
        return buffer.log_()

    _, origins = watched(Net(f=into_new_memory), -torch.ones(2))
    assert names(origins) == [("operator", "f", "aten::log_")]


def test_a_copy_does_not_read_what_it_overwrites(garbage):
    net = Net(f=lambda x: torch.empty(2, dtype=torch.half).copy_(x))
    _, origins = watched(net, torch.full((2,), 1e6))
    assert names(origins) == [("operator", "f", "aten::copy_")]
    assert (origins[0].inputs.count, origins[0].inputs.high) == (2, 1e6)


def test_memory_that_is_used_again_forgets_what_lay_there():
    def reuse(x):
        for _ in range(20):
            x.log().sum()
        return (x * 1e30) * 1e30

    _, origins = watched(Net(f=reuse), torch.full((1000,), -1.0))
    assert names(origins) == [("operator", "f", "aten::mul")]


def test_a_constant_of_the_code_is_told_as_such():
    _, origins = watched(Net(f=lambda x: x.masked_fill(x > 0, INF)), torch.ones(2))
    assert names(origins) == [("constant", "f", "aten::masked_fill")]


def test_an_overflow_by_a_smaller_type_is_the_conversion():
    net = Net(scale=lambda x: x * 1e6, to_half=torch.Tensor.half, back=torch.exp)
    _, origins = watched(net, torch.ones(2))
    assert names(origins) == [("operator", "to_half", "aten::_to_copy")]


def test_a_weight_is_blamed_before_the_module_that_uses_it():
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight[1, 0] = NAN
    net = Net(exp=torch.exp, linear=linear)
    modules, origins = watched(net, torch.ones(1, 2), **{"weight w": linear.weight})
    assert names(origins) == [("tensor", "", "weight w")]
    assert modules.first_origin().path == "linear"


def test_a_module_called_twice_is_two_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.log = Function(torch.log)

        def forward(self, x):
            return self.log(x) + self.log(x - 1)

    modules, origins = watched(Twice(), torch.tensor([1.0, 0.5]))
    assert [(call.path, call.outputs.nan) for call in modules.calls] == [
        ("log", 0), ("log", 1), ("", 1)
    ]  # fmt: skip
    assert names(origins) == [("operator", "log", "aten::log")]


def test_what_comes_up_between_modules_is_their_parents():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = Function(torch.neg), Function(torch.exp)

        def forward(self, x):
            return self.last(self.first(x).sqrt())

    modules, origins = watched(Between(), torch.ones(2))
    assert names(origins) == [("operator", "", "aten::sqrt")]
    assert modules.first_origin().path == ""


def backward(net, x):
    """The gradient trace of the sum of a network's output."""
    modules = ModuleTrace()
    with modules.watch(net), torch.autograd.set_detect_anomaly(True, check_nan=False):
        total = net(x).sum()
    assert total.isfinite()
    trace = GradientTrace(total, modules.owners)
    total.backward()
    return trace.origin


def test_the_first_node_of_the_backward_pass_is_blamed():
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    net = Net(twice=lambda x: x * 2, root=torch.sqrt, zero=lambda x: x * 0)
    origin = backward(net, x)
    assert (origin.node, origin.module, origin.is_sum) == ("SqrtBackward0", "root", False)
    assert (origin.incoming.non_finite, origin.outgoing.nan) == (0, 1)
    assert "return self.function(*args)" in origin.line


def test_a_node_between_modules_is_their_parents():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = Function(torch.neg), Function(lambda x: x * 0)

        def forward(self, x):
            return self.last(self.first(x).sqrt())

    origin = backward(Between(), torch.zeros(2, requires_grad=True))
    assert (origin.node, origin.module) == ("SqrtBackward0", "")


def test_a_branch_that_is_not_taken_is_blamed_in_the_backward_pass_only():
    x = torch.tensor([-1.0, 4.0], requires_grad=True)
    net = Net(choose=lambda x: torch.where(x > 0, x.sqrt(), 0.0))
    assert backward(net, x).node == "SqrtBackward0"


def test_a_sum_of_gradients_that_overflows_is_told_as_such():
    x = torch.ones(1, requires_grad=True)
    origin = backward(Net(fork=lambda x: (x * 3e38) / 2 + (x * 3e38) / 2), x)
    assert origin is None
    x = torch.zeros(1, requires_grad=True)
    origin = backward(Net(same=lambda x: x * 1, fork=lambda x: x * 3e38 + x * 3e38), x)
    assert (origin.node, origin.is_sum, origin.module) == ("MulBackward0", True, "same")


def test_finite_gradients_blame_nothing():
    assert backward(Net(root=torch.sqrt), torch.ones(2, requires_grad=True)) is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "no floating-point numbers"),
        ([1.0, -3.0], "from -3 to 1, mean abs 2"),
        ([NAN, 2.0, INF, -INF], "1 NaN and 2 infinite of 4, the others from 2 to 2, mean abs 2"),
        ([NAN], "1 NaN of 1"),
        ([3e38, 3e38], "from 3e+38 to 3e+38, mean abs 3e+38"),
    ],
)
def test_numbers_are_summed_up(values, told):
    assert str(TensorStats.of(torch.tensor(values))) == told


def test_tensors_are_found_wherever_they_are():
    value = [
        {"a": (torch.tensor(1.0), None, "text"), "b": torch.tensor(7)},
        Instances((2, 2), gt_boxes=torch.full((1, 4), 2.0)),
        ImageList(torch.full((1, 3, 1, 1), NAN), [(1, 1)]),
    ]
    assert stats_of(value) == TensorStats(8, 3, 0, 1.0, 2.0, 9 / 5)
