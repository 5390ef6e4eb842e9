"""The native kernels against plain torch and torchvision, on easy boxes and on hard ones."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
import torchvision

import detlite
from detlite.ops import batched_nms, box_iou, generalized_box_iou, nms, nms_padded, reference

ROOT = pathlib.Path(__file__).parents[2]


def load_box_sets():
    path = ROOT / "tools" / "benchmarks" / "box_sets.py"
    spec = importlib.util.spec_from_file_location("box_sets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SETS = load_box_sets()
# 192 kept boxes are where the kernel begins to hash.
SIZES = [1, 2, 33, 260, 500]
THRESHOLDS = [0.0, 1e-7, 0.05, 0.3, 0.5, 0.7, 0.95]
needs_native = pytest.mark.skipif(
    not list(pathlib.Path(detlite.__path__[0], "ops").glob("_native.*")),
    reason="the native ops were not built",
)


def draw_scores(num_boxes, dtype, seed, kind):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(num_boxes, generator=generator, dtype=dtype)
    if kind == "tied":
        return (scores * 5).round() - 2.0
    if kind == "odd":
        values = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-40])
        return torch.where(scores < 0.5, values.to(dtype)[(scores * 12).long() % 6], scores)
    return scores


def nms_class_by_class(boxes, scores, classes, threshold):
    kept = [
        members[torchvision.ops.nms(boxes[members], scores[members], threshold)]
        for members in ((classes == k).nonzero().flatten() for k in classes.unique())
    ]
    kept = torch.cat(kept).sort().values
    return kept[scores[kept].sort(stable=True, descending=True).indices]


@needs_native
def test_the_kernels_of_the_cpu_are_there():
    for name in ("nms", "batched_nms", "nms_padded", "box_iou", "generalized_box_iou"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"detlite::{name}", "CPU")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_boxes", SIZES)
@pytest.mark.parametrize("name", SETS.ADVERSARIAL)
def test_nms_equals_torchvision_and_plain_torch(name, num_boxes, dtype):
    for seed, kind in enumerate(("distinct", "tied")):
        boxes = SETS.adversarial(name, num_boxes, seed).to(dtype)
        scores = draw_scores(num_boxes, dtype, seed, kind)
        for threshold in THRESHOLDS:
            kept = nms(boxes, scores, threshold)
            expected = reference.nms(boxes, scores, threshold)
            assert torch.equal(kept, expected), (kind, threshold)
            # With a bad box torchvision's result is what the comparison with a NaN makes of it.
            if reference.valid_boxes(boxes).all():
                assert torch.equal(kept, torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SETS.ADVERSARIAL)
def test_nms_by_groups_equals_plain_torch(name, dtype):
    generator = torch.Generator().manual_seed(7)
    far = torch.tensor([-(2**63), 2**63 - 1, 0, 5])
    for seed, (num_boxes, num_groups) in enumerate([(1, 1), (50, 3), (500, 2), (1200, 30)]):
        boxes = SETS.adversarial(name, num_boxes, seed).to(dtype)
        groups = torch.randint(num_groups, (num_boxes,), generator=generator)
        for kind, labels in (
            ("distinct", groups),
            ("tied", far[groups % 4]),
            ("odd", groups.to(torch.int16)),
        ):
            scores = draw_scores(num_boxes, dtype, seed, kind)
            expected = reference.batched_nms(boxes, scores, labels, 0.5)
            assert torch.equal(batched_nms(boxes, scores, labels, 0.5), expected)
        alone = torch.arange(num_boxes)
        assert len(batched_nms(boxes, scores, alone, 0.0)) == num_boxes


@pytest.mark.parametrize("max_detections", [0, 1, 10, 100, 2000])
@pytest.mark.parametrize("name", SETS.ADVERSARIAL)
def test_padded_nms_equals_plain_torch(name, max_detections):
    boxes = torch.stack([SETS.adversarial(name, 600, seed).float() for seed in range(3)])
    scores = torch.stack(
        [draw_scores(600, torch.float32, s, k) for s, k in enumerate(("distinct", "tied", "odd"))]
    )
    scores[0, 300:] = -float("inf")
    groups = torch.randint(4, (3, 600), generator=torch.Generator().manual_seed(1))
    for threshold in (0.3, 0.5, 0.9):
        arguments = (boxes, scores, groups, threshold, max_detections)
        for ours, expected in zip(
            nms_padded(*arguments), reference.nms_padded(*arguments), strict=True
        ):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SETS.ADVERSARIAL)
def test_overlaps_equal_plain_torch_to_the_bit(name, dtype):
    for n, m in ((1, 1), (3, 17), (65, 513), (130, 1100)):
        boxes1 = SETS.adversarial(name, n, 1).to(dtype)
        boxes2 = SETS.adversarial(name, m, 2).to(dtype)
        assert torch.equal(box_iou(boxes1, boxes2), reference.box_iou(boxes1, boxes2))
        assert torch.equal(
            generalized_box_iou(boxes1, boxes2), reference.generalized_box_iou(boxes1, boxes2)
        )


@pytest.mark.parametrize("name", ["scattered", "chain", "whole numbers"])
@pytest.mark.parametrize("num_boxes", [5000, 20000])
def test_nms_of_many_boxes_equals_torchvision(name, num_boxes):
    boxes = (
        SETS.scattered(num_boxes)
        if name == "scattered"
        else SETS.adversarial(name, num_boxes).float()
    )
    scores = draw_scores(num_boxes, torch.float32, 0, "distinct")
    assert torch.equal(nms(boxes, scores, 0.5), torchvision.ops.nms(boxes, scores, 0.5))


def test_halves_are_computed_in_single_precision():
    boxes = SETS.adversarial("a crowded image", 400).to(torch.bfloat16)
    scores = draw_scores(400, torch.float32, 0, "distinct").half()
    assert torch.equal(nms(boxes, scores, 0.5), nms(boxes.float(), scores.float(), 0.5))


def test_views_and_gradients_do_not_matter_to_nms():
    boxes = SETS.adversarial("a crowded image", 300).float()
    scores = draw_scores(300, torch.float32, 0, "distinct")
    expected = nms(boxes, scores, 0.5)
    strided = torch.stack((boxes.T, boxes.T), dim=-1)[..., 0].T
    assert not strided.is_contiguous()
    assert torch.equal(nms(strided, scores.repeat_interleave(2)[::2], 0.5), expected)
    assert torch.equal(nms(boxes.requires_grad_(), scores.requires_grad_(), 0.5), expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_a_result(threads):
    boxes = SETS.adversarial("a crowded image", 20000).float()
    scores = draw_scores(20000, torch.float32, 0, "tied")
    groups = torch.arange(20000) % 7
    expected = nms_class_by_class(boxes, scores, groups, 0.5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(batched_nms(boxes, scores, groups, 0.5), expected)
    finally:
        torch.set_num_threads(before)


def samples():
    """A call of each op of this file with small inputs."""
    boxes = SETS.adversarial("a crowded image", 40).float()
    batch = boxes.reshape(2, 20, 4)
    scores = draw_scores(40, torch.float32, 0, "tied")
    groups = torch.arange(40) % 3
    padded = (batch, scores.reshape(2, 20), groups.reshape(2, 20), 0.5, 7)
    wide = boxes.double().requires_grad_()
    return {
        "nms": (boxes, scores, 0.5),
        "batched_nms": (boxes, scores, groups, 0.5),
        "nms_padded": padded,
        "box_iou": (wide, wide[:5].detach().requires_grad_()),
        "generalized_box_iou": (wide, wide[:5].detach().requires_grad_()),
    }


# opcheck looks at the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", list(samples()))
def test_the_op_keeps_torchs_contract_for_operators(name):
    torch.library.opcheck(getattr(torch.ops.detlite, name).default, samples()[name])


@needs_native
@pytest.mark.parametrize("name", list(samples()))
def test_plain_torch_has_the_schema_of_the_kernels(name):
    schema = torch.library.infer_schema(getattr(reference, name), mutates_args=())
    assert str(getattr(torch.ops.detlite, name).default._schema) == f"detlite::{name}{schema}"


@pytest.mark.parametrize("op", [box_iou, generalized_box_iou])
def test_overlaps_have_the_gradient_of_their_value(op):
    boxes1 = SETS.adversarial("a crowded image", 12, 1).requires_grad_()
    boxes2 = SETS.adversarial("a crowded image", 9, 2).requires_grad_()
    assert torch.autograd.gradcheck(op, (boxes1, boxes2))


@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou"])
def test_gradients_equal_those_of_plain_torch(name, bad_boxes):
    for dtype in (torch.float32, torch.float64):
        # Corners that coincide, and some boxes that are bad.
        boxes1 = torch.cat((SETS.adversarial("whole numbers", 60, 1), bad_boxes.double())).to(dtype)
        boxes2 = SETS.adversarial("whole numbers", 50, 2).to(dtype)
        weights = torch.rand(70, 50, generator=torch.Generator().manual_seed(3), dtype=dtype)
        # The slope of clamp(min=0) at 0 is not the same in every version of torch.
        low = torch.max(boxes1[:, None, :2], boxes2[:, :2])
        touching = (torch.min(boxes1[:, None, 2:], boxes2[:, 2:]) == low).any(dim=-1)
        assert touching.any()
        weights[touching] = 0
        good = reference.valid_boxes(boxes1)
        inputs = [boxes1.clone().requires_grad_(), boxes2.clone().requires_grad_()]
        ours = (getattr(detlite.ops, name)(*inputs) * weights).sum()
        # Plain torch makes NaN of a bad box, 0 times infinity, so it gets only the good ones.
        plain = (getattr(reference, name)(inputs[0][good], inputs[1]) * weights[good]).sum()
        for a, b in zip(*(torch.autograd.grad(x, inputs) for x in (ours, plain)), strict=True):
            assert a.isfinite().all()
            torch.testing.assert_close(a, b)


PROGRAM = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from detlite.ops import nms, box_iou, nms_padded
    import detlite.ops.boxes
print([str(w.message) for w in caught if "detlite" in str(w.message)])
import torch
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], requires_grad=True)
scores = torch.tensor([0.5, 0.9, 0.1])
print(detlite.__file__)
print(nms(boxes, scores, 0.5).tolist(), box_iou(boxes, boxes).sum().backward(), boxes.grad.shape)
compiled = torch.compile(lambda *x: nms_padded(*x, 0.5, 2), fullgraph=True, backend="eager")
print([x.tolist() for x in compiled(boxes[None], scores[None], torch.zeros(1, 3).long())])
"""


def test_without_the_extension_plain_torch_does_the_work_after_one_warning(tmp_path):
    package = tmp_path / "detlite"
    shutil.copytree(detlite.__path__[0], package, ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    warning, path, *results = done.stdout.splitlines()
    assert str(tmp_path) in path
    assert warning.count("detlite runs without its native ops") == 1
    assert "Install a C++ compiler" in warning
    assert results == ["[1, 2] None torch.Size([3, 4])", "[[[1, 2]], [2]]"]


# Of torch itself, as it loads its formulas of forward mode.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
@pytest.mark.parametrize("op", [box_iou, generalized_box_iou])
def test_overlaps_have_their_derivatives_in_every_mode(op, bad_boxes):
    bad = bad_boxes[:8].double()  # float64 can hold the areas of the others
    boxes1 = torch.cat((SETS.adversarial("a crowded image", 12, 1), bad))
    boxes2 = torch.cat((bad, SETS.adversarial("a crowded image", 9, 2)))
    tangent = torch.randn(boxes1.shape, generator=torch.Generator().manual_seed(3)).double()
    weights = torch.rand(len(boxes1), len(boxes2), generator=torch.Generator().manual_seed(4))

    def total(x):
        return (op(x, boxes2) * weights).sum()

    x = boxes1.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(x), x)
    value, along = torch.func.jvp(total, (boxes1,), (tangent,))
    assert value == total(boxes1)
    torch.testing.assert_close(along, (gradient * tangent).sum())
    torch.testing.assert_close(torch.func.grad(total)(boxes1), gradient)


OPS = torch.ops.detlite
BOXES, SCORES, GROUPS = torch.rand(3, 4), torch.rand(3), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("op", "tensors", "rest"),
    [
        (OPS.box_iou, (BOXES, BOXES), ()),
        (OPS.generalized_box_iou, (BOXES, BOXES), ()),
        (OPS.nms, (BOXES, SCORES), (0.5,)),
        (OPS.batched_nms, (BOXES, SCORES, GROUPS), (0.5,)),
        (OPS.nms_padded, (BOXES[None], SCORES[None], GROUPS[None]), (0.5, 2)),
        (OPS.match_anchors, (BOXES, torch.tensor([0, 3]), BOXES), (0.5, 0.4, True)),
        (OPS.sigmoid_focal_loss, (BOXES, GROUPS), (0.25, 2.0)),
        (OPS.sigmoid_focal_loss_backward, (torch.tensor(1.0), BOXES, GROUPS), (0.25, 2.0)),
    ],
)
def test_raw_operators_refuse_tensors_of_several_devices(op, tensors, rest):
    for place in range(len(tensors)):
        mixed = [each.to("meta") if i == place else each for i, each in enumerate(tensors)]
        with pytest.raises((ValueError, RuntimeError), match=r"one device, got cpu and meta|meta"):
            op(*mixed, *rest)
