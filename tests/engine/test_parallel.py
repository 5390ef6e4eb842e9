"""One batch gives one gradient, however many processes and parts compute it."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from detlite.engine.parallel import (
    backward_context,
    batch_shares,
    parallel_model,
    split_batch,
    sync_model,
)
from detlite.errors import ConfigError, UserError
from detlite.modeling import MetaArch

SCRIPT = pathlib.Path(__file__).parent / "run_parallel.py"
CPU = torch.device("cpu")


def run_script(folder, which):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, folder, which], env=environment, check=True
    )
    return torch.load(folder / "results.pt", weights_only=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return run_script(tmp_path_factory.mktemp("quick"), "quick")


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return run_script(tmp_path_factory.mktemp("slow"), "slow")


def distance(found, expected):
    """The greatest difference of any parameter's gradient, relative to its greatest value."""
    assert found.keys() == expected.keys()
    assert all(value.any() for value in expected.values())
    return max(
        ((found[name] - value).abs().max() / value.abs().max()).item()
        for name, value in expected.items()
    )


def check_layouts(case, tolerance, layouts):
    """Every rank of every layout has the gradients, the metrics and the buffers of one process."""
    assert set(case) == set(layouts)
    (expected,) = case[1, 1]
    assert all(values["num_positives"] > 0 for values in expected["metrics"])
    for layout, ranks in case.items():
        assert distance(ranks[0]["gradients"], expected["gradients"]) <= tolerance, layout
        # Not only near each other: every rank's optimizer shall make the same step.
        assert len({found["sha256"] for found in ranks}) == 1
        for found in ranks:
            for values, wanted in zip(found["metrics"], expected["metrics"], strict=True):
                assert values == pytest.approx(wanted, rel=max(tolerance, 1e-12)), layout
                assert values["num_positives"] == wanted["num_positives"]
            for name, value in expected["buffers"].items():
                torch.testing.assert_close(
                    found["buffers"][name], value, rtol=tolerance, atol=tolerance
                )


ALL = [(1, 1), (1, 8), (2, 1), (2, 2), (3, 1), (4, 1)]


@pytest.mark.parametrize(
    ("case", "tolerance", "layouts"),
    [
        ("float32", 1e-6, ALL),
        ("float64", 1e-12, ALL),
        ("SyncBN", 1e-10, [(1, 1), (2, 1), (3, 1), (4, 1)]),
    ],
)
def test_every_layout_gives_the_gradients_of_one_process(case, tolerance, layouts, quick):
    check_layouts(quick["cases"][case], tolerance, layouts)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["using", "ignoring"])
@pytest.mark.parametrize("normalizer", ["MovingAverage", "Batch", "BatchByImage", "PerImage"])
def test_every_normalizer_is_of_the_whole_batch(normalizer, padding, slow):
    layouts = [(1, 1), (1, 8), (2, 2), (3, 2), (4, 1)]
    check_layouts(slow["cases"][f"{normalizer} {padding} padding"], 1e-12, layouts)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sizes that are no multiples", "ResNet-18"])
def test_a_resnet_and_sizes_that_are_no_multiples_make_no_difference(case, slow):
    check_layouts(slow["cases"][case], 1e-6, [(1, 1), (1, 8), (2, 2), (3, 2), (4, 1)])


@pytest.mark.slow
def test_the_convolutions_of_onednn_round_by_the_number_of_images_and_no_more(slow):
    (expected,) = slow["cases"]["ResNet-18 by oneDNN"][1, 1]
    for ranks in slow["cases"]["ResNet-18 by oneDNN"].values():
        pairs = [(ranks[0]["gradients"][n], value) for n, value in expected["gradients"].items()]
        difference = sum((found - value).square().sum() for found, value in pairs).sqrt()
        assert difference <= 1e-6 * sum(value.square().sum() for _, value in pairs).sqrt()


def test_gradients_are_added_in_the_order_of_ranks_whatever_the_layout_of_buckets(quick):
    for found in quick["run_bit_equality"]:
        assert found["rebuilt"]
        assert found["equal"] == [True, True, True]


def test_a_parameter_without_a_gradient_is_named(quick):
    for messages in quick["run_mistakes"]:
        assert "UserError: no gradient reached 1 of the trained" in messages["unused"]
        assert "the first are unused;" in messages["unused"]


def test_a_batch_that_is_too_small_is_refused_on_every_process(quick):
    for messages in quick["run_mistakes"]:
        assert messages["too small"].startswith(
            "ConfigError: data.batch_size=3 is too small for 2 processes with train.accumulate=2"
        )
        assert "at least 4" in messages["too small"]
        assert messages["nothing"].startswith(
            "ConfigError: data.batch_size=1 is too small for 2 processes with train.accumulate=1"
        )


def test_samples_that_are_not_the_ranks_share_are_refused(quick):
    for messages in quick["run_mistakes"]:
        assert messages["uneven"].startswith("UserError: the processes have 1, 3 samples")


def test_counts_of_all_ranks_stand_in_the_order_of_the_batch(quick):
    weights = []
    for counts, of_parts in quick["run_order"]:
        assert counts == [10, 11, 12, 13, 14, 15, 16]
        weights.append(of_parts)
    assert weights == [[[100, 160], [130]], [[110], [140]], [[120], [150]]]


def test_buffers_of_every_type_become_those_of_the_first_rank(quick):
    first = quick["run_sync"][0][0]
    assert {str(value.dtype) for value in first.values()} >= {"torch.bool", "torch.bfloat16"}
    for before, after in quick["run_sync"][1:]:
        assert not torch.equal(before["mean"], first["mean"])
        assert before["count"] != first["count"]
        for name, value in first.items():
            assert torch.equal(after[name], value), name
            assert after[name].stride() == value.stride()


def rows(values):
    """Values of all ranks, (N, C, H, W) each, as (M, C)."""
    return torch.cat([value.movedim(1, -1).flatten(0, -2) for value in values])


@pytest.mark.parametrize(
    ("case", "keys", "tolerance"),
    [
        ("float64", {}, 1e-12),
        ("far from 0", {}, 2e-3),
        ("no momentum", {"momentum": None}, 1e-12),
        ("no affine", {"affine": False}, 1e-12),
        ("no statistics", {"track_running_stats": False}, 1e-12),
        ("bfloat16", {}, 2e-2),
    ],
)
def test_a_synchronized_norm_of_unequal_shares_is_one_of_all_values(case, keys, tolerance, quick):
    ranks = [results[case] for results in quick["run_norms"]]
    peer = nn.BatchNorm1d(5, **keys).double()
    own = ("weight", "bias") if peer.affine else ()
    peer.load_state_dict({name: ranks[0]["state"][name] for name in own}, strict=False)
    for i in range(2):
        steps = [rank["steps"][i] for rank in ranks]
        x = rows([step[0] for step in steps]).double().requires_grad_()
        peer.zero_grad()
        y = peer(x)
        y.backward(rows([step[1] for step in steps]).to(steps[0][0].dtype).double())
        for place, value in ((2, y), (3, x.grad)):
            found = rows([step[place] for step in steps])
            assert found.dtype == steps[0][0].dtype
            torch.testing.assert_close(found.double(), value, rtol=tolerance, atol=tolerance)
        for j, parameter in enumerate(peer.parameters()):
            found = sum(step[4][j].double() for step in steps)
            atol = tolerance * len(x)
            torch.testing.assert_close(found, parameter.grad, rtol=tolerance, atol=atol)
    for rank in ranks:
        assert rank["state"].keys() == peer.state_dict().keys()
        for name, value in peer.state_dict().items():
            found = rank["state"][name].to(value.dtype)
            torch.testing.assert_close(found, value, rtol=tolerance / 10, atol=1e-12)
    if peer.track_running_stats:
        expected = peer.eval()(rows([rank["steps"][0][0] for rank in ranks]).double())
        found = rows([rank["evaluated"] for rank in ranks]).double()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("num_samples", "num_parts", "expected"),
    [
        (5, 2, [[0, 2, 4], [1, 3]]),
        (4, 1, [[0, 1, 2, 3]]),
        (3, 3, [[0], [1], [2]]),
        (1, 2, [[0], []]),
    ],
)
def test_a_part_has_every_so_manyth_sample(num_samples, num_parts, expected):
    samples = [{"i": i} for i in range(num_samples)]
    found = [[sample["i"] for sample in part] for part in split_batch(samples, num_parts)]
    assert found == expected


class Brightness(MetaArch):
    """A model of an author who leaves counts and weights as they are: a mean over images."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, batch, share=None):
        sums = torch.stack([(self.scale * s["image"]).square().mean() for s in batch])
        weights = self.loss_weights(torch.ones(len(batch))) if share is None else share.weights
        return {"loss_square": (sums * weights).sum()}


class NoShare(MetaArch):
    """A model of an author who has not read of shares."""

    def forward(self, batch):
        return {}


def draw_samples(num):
    generator = torch.Generator().manual_seed(num)
    return [{"image": torch.rand(3, 4 + i, 9 - i, generator=generator)} for i in range(num)]


def test_one_process_and_one_part_are_told_nothing():
    # Not even what a model without a count could not answer.
    assert batch_shares(nn.Linear(1, 1), [draw_samples(2)], CPU) == [None]
    assert batch_shares(NoShare(), [draw_samples(2)], CPU) == [None]
    model = nn.Linear(1, 1)
    assert parallel_model(model, CPU) is model
    sync_model(model)


@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_a_mean_over_images_needs_nothing_but_the_shares_weights(num_parts):
    model, samples = Brightness(), draw_samples(5)
    model(samples)["loss_square"].backward()
    expected = model.scale.grad.item()
    model.scale.grad = None
    parts = split_batch(samples, num_parts)
    shares = batch_shares(model, parts, CPU)
    assert {share.canvas for share in shares} == {(8, 9)}
    for i, (part, share) in enumerate(zip(parts, shares, strict=True)):
        with backward_context(model, i == num_parts - 1):
            model(part, share)["loss_square"].backward()
    assert model.scale.grad.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", [NoShare(), nn.Linear(1, 1)])
def test_a_model_that_cannot_be_trained_in_parts_says_so(model):
    name = type(model).__name__
    with pytest.raises(UserError, match=rf"{name} can only be trained on whole batches.*`share`"):
        batch_shares(model, split_batch(draw_samples(4), 2), CPU)


def test_more_parts_than_images_are_refused():
    message = r"data.batch_size=2 is too small for 1 process with train.accumulate=3.*at least 3"
    with pytest.raises(ConfigError, match=message):
        batch_shares(Brightness(), split_batch(draw_samples(2), 3), CPU)


def test_weights_of_another_length_are_refused():
    model = Brightness()
    model.loss_weights = lambda counts: torch.ones(1)
    with pytest.raises(UserError, match=r"loss_weights of Brightness.*the 4 images.*\(1,\)"):
        batch_shares(model, split_batch(draw_samples(4), 2), CPU)


def test_counts_reach_the_weights_in_the_order_of_the_batch():
    model = Brightness()
    model.count_targets = lambda batch, canvas: torch.tensor([s["image"].shape[1] for s in batch])
    model.loss_weights = lambda counts: counts * 10.0
    shares = batch_shares(model, split_batch(draw_samples(5), 2), CPU)
    assert [share.weights.tolist() for share in shares] == [[40, 60, 80], [50, 70]]
