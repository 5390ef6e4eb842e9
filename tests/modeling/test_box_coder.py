import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from detlite.modeling import DeltaBoxCoder

WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (0.5, 2.0, 3.0, 0.25)]


def draw_boxes(num_boxes, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = 500 * torch.rand(num_boxes, 2, generator=generator) - 50
    size = 1 + 300 * torch.rand(num_boxes, 2, generator=generator)
    return torch.cat((corner, corner + size), dim=1)


def test_hand_worked_deltas():
    anchor = torch.tensor([[0.0, 0, 10, 20]])
    box = torch.tensor([[5.0, 10, 25, 50]])
    deltas = torch.tensor([[1.0, 1.0, math.log(2), math.log(2)]])
    torch.testing.assert_close(DeltaBoxCoder().encode(box, anchor), deltas)
    torch.testing.assert_close(DeltaBoxCoder().decode(deltas, anchor), box)
    weighted = DeltaBoxCoder(weights=(10, 20, 5, 2))
    torch.testing.assert_close(
        weighted.encode(box, anchor), deltas * torch.tensor([10.0, 20, 5, 2])
    )


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("num_boxes", [0, 1, 1000])
def test_coding_equals_torchvision(num_boxes, weights):
    coder, peer = DeltaBoxCoder(weights=weights), BoxCoder(weights)
    boxes, anchors = draw_boxes(num_boxes, 1), draw_boxes(num_boxes, 2)
    deltas = coder.encode(boxes, anchors)
    assert torch.equal(deltas, peer.encode_single(boxes, anchors))
    noisy = deltas + 3 * torch.randn(deltas.shape, generator=torch.Generator().manual_seed(3))
    assert torch.equal(coder.decode(noisy, anchors), peer.decode_single(noisy, anchors))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_decoding_undoes_encoding(weights):
    coder = DeltaBoxCoder(weights=weights, scale_clamp=10.0)
    boxes, anchors = draw_boxes(500, 4), draw_boxes(500, 5)
    decoded = coder.decode(coder.encode(boxes, anchors), anchors)
    torch.testing.assert_close(decoded, boxes, rtol=1e-5, atol=1e-3)
    assert not coder.encode(anchors, anchors).any()


def test_growth_is_limited_and_shrinking_is_not():
    anchor = torch.tensor([[0.0, 0, 16, 16]])
    decoded = DeltaBoxCoder().decode(torch.tensor([[0.0, 0, 1e4, -1e4]]), anchor)
    assert decoded[0].tolist() == pytest.approx([8 - 500, 8, 8 + 500, 8])
    decoded = DeltaBoxCoder(scale_clamp=math.log(2)).decode(torch.tensor([[0, 0, 5.0, 5]]), anchor)
    assert decoded[0].tolist() == pytest.approx([-8, -8, 24, 24])
    # The limit holds for the delta after its weight.
    weighted = DeltaBoxCoder(weights=(1, 1, 5, 5), scale_clamp=math.log(2))
    decoded = weighted.decode(torch.tensor([[0.0, 0, 5 * math.log(2), 1e4]]), anchor)
    assert decoded[0].tolist() == pytest.approx([-8, -8, 24, 24])


@pytest.mark.parametrize("clamp", [math.log(1000 / 16), math.log(2)])
def test_shrinking_is_limited_where_asked_for(clamp):
    coder = DeltaBoxCoder(scale_clamp=clamp, clamp_shrinking=True)
    anchor = torch.tensor([[0.0, 0, 100, 200]]).expand(4, 4)
    scales = torch.tensor([[-1e4, 1e4], [clamp + 0.1, -clamp - 0.1], [-clamp, clamp], [-0.5, 0.6]])
    decoded = coder.decode(torch.cat((torch.zeros(4, 2), scales), dim=1), anchor)
    limited = [[-clamp, clamp], [clamp, -clamp], [-clamp, clamp], [-0.5, 0.6]]
    sizes = [[100 * math.exp(dw), 200 * math.exp(dh)] for dw, dh in limited]
    torch.testing.assert_close(decoded[:, 2:] - decoded[:, :2], torch.tensor(sizes))
    # Each side on its own, and after its weight.
    weighted = DeltaBoxCoder(weights=(1, 1, 5, 2), scale_clamp=clamp, clamp_shrinking=True)
    deltas = torch.tensor([[0.0, 0, -5 * clamp - 1, -2 * clamp + 1]])
    ((x1, y1, x2, y2),) = weighted.decode(deltas, anchor[:1]).tolist()
    assert x2 - x1 == pytest.approx(100 / math.exp(clamp), rel=1e-5)
    assert y2 - y1 == pytest.approx(200 / math.exp(clamp - 0.5), rel=1e-5)


def test_batches_are_coded_like_single_boxes():
    coder = DeltaBoxCoder()
    boxes, anchors = draw_boxes(24, 6).view(2, 3, 4, 4), draw_boxes(24, 7).view(2, 3, 4, 4)
    deltas = coder.encode(boxes, anchors)
    assert torch.equal(deltas.view(24, 4), coder.encode(boxes.view(24, 4), anchors.view(24, 4)))
    assert coder.decode(deltas, anchors).shape == (2, 3, 4, 4)
