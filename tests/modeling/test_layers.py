import pytest
import torch
import torchvision
from torch import nn

from detlite.modeling.layers import (
    ConvNorm,
    FrozenBatchNorm2d,
    GroupNorm,
    by_anchor,
    init_prior,
    init_xavier,
    make_norm,
)
from detlite.modeling.sync_batch_norm import SyncBatchNorm
from detlite.structures import ImageExtents, image_extents


def draw_norm(norm):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return norm


@pytest.mark.parametrize("eps", [1e-5, 0.0, 0.1])
def test_frozen_batch_norm_equals_torchvision(eps):
    peer = draw_norm(torchvision.ops.FrozenBatchNorm2d(6, eps=eps))
    norm = FrozenBatchNorm2d(6, eps=eps)
    norm.load_state_dict(peer.state_dict())
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    assert torch.equal(norm(x), peer(x))
    assert list(norm.parameters()) == []
    gradients = [torch.autograd.grad((f(x) ** 2).sum(), x)[0] for f in (norm, peer)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_frozen_batch_norm_keeps_the_type_of_its_input(dtype):
    norm = draw_norm(FrozenBatchNorm2d(3))
    x = torch.rand(1, 3, 4, 4)
    result = norm(x.to(dtype))
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), norm(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, SyncBatchNorm])
def test_freezing_keeps_what_a_batch_norm_computes(kind):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(draw_norm(kind(4, eps=1e-3))))
    plain = nn.Sequential(module[0], nn.BatchNorm2d(4, eps=1e-3)).eval()
    plain[1].load_state_dict(module[1][0].state_dict())
    frozen = FrozenBatchNorm2d.convert(module)
    assert frozen is module
    assert isinstance(frozen[1][0], FrozenBatchNorm2d)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(frozen.train()(x), plain(x))
    assert str(frozen[1][0]) == "FrozenBatchNorm2d(4, eps=0.001)"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", GroupNorm),
    ],
)
def test_norms_are_made_by_name(name, kind):
    assert type(make_norm(name, 64)) is kind
    assert make_norm("", 64) is None


def test_an_unknown_norm_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of BN, FrozenBN, SyncBN, GN, got 'LN'"):
        make_norm("LN", 8)


@pytest.mark.parametrize("name", ["BN", "SyncBN", "FrozenBN", "GN"])
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_every_norm_takes_its_eps(name, eps):
    assert make_norm(name, 8).eps == 1e-5
    assert make_norm(name, 8, eps).eps == eps
    assert ConvNorm(3, 8, 1, norm=name, norm_eps=eps).norm.eps == eps


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (32, 32), (48, 16), (7, 1)])
def test_the_groups_of_a_group_norm_divide_the_channels(channels, groups):
    assert make_norm("GN", channels).num_groups == groups


SIZES = [(32, 24), (16, 32), (32, 32)]  # in pixels; cells are 4 x 4 of them


def padded_maps(dtype=torch.float32, channels=8):
    """Maps (3, channels, 8, 8) of images of SIZES, with large values on the padding."""
    generator = torch.Generator().manual_seed(0)
    maps = 100 * torch.randn(3, channels, 8, 8, generator=generator, dtype=dtype)
    for i, x in enumerate(images_of(maps)):
        x.copy_(3 + torch.randn(x.shape, generator=generator, dtype=dtype) * (i + 1))
    return maps


def images_of(maps):
    """The part of each map that belongs to the image, (1, C, h, w)."""
    return [x[None, :, : h // 4, : w // 4] for x, (h, w) in zip(maps, SIZES, strict=True)]


def draw_group_norm(dtype=torch.float32, groups=2, channels=8, affine=True):
    norm = GroupNorm(groups, channels, affine=affine).to(dtype)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


extents = ImageExtents(torch.tensor(SIZES), (32, 32))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_a_group_norm_gives_an_image_in_a_batch_what_it_gives_it_alone(affine, layout):
    norm, maps = draw_group_norm(affine=affine), padded_maps()
    peer = nn.GroupNorm(2, 8, affine=affine)
    peer.load_state_dict(norm.state_dict())
    with torch.no_grad(), image_extents(extents):
        found = norm(maps.contiguous(memory_format=layout))
    for ours, x in zip(images_of(found), images_of(maps), strict=True):
        torch.testing.assert_close(ours, peer(x), rtol=1e-5, atol=1e-5)
        ours.zero_()
    assert not found.any()  # the padding


def test_a_group_norm_of_images_without_padding_has_pytorchs_bits():
    norm, maps = draw_group_norm(), padded_maps()
    peer = nn.GroupNorm(2, 8)
    peer.load_state_dict(norm.state_dict(), strict=True)
    assert torch.equal(norm(maps), peer(maps))
    with image_extents(extents):
        # Not of this batch.
        assert torch.equal(norm(maps[:2]), peer(maps[:2]))
        assert torch.equal(norm(maps[..., :7]), peer(maps[..., :7]))


def test_a_level_of_one_cell_is_no_other_in_a_single_image():
    norm = draw_group_norm(groups=8)
    with torch.no_grad():
        found = norm(torch.randn(1, 8, 1, 1))
    # The eps lets rounding errors through, 316 times as large.
    torch.testing.assert_close(found.flatten(), norm.bias.detach(), rtol=0, atol=1e-4)


def test_gradients_of_a_group_norm_that_sees_no_padding_are_right():
    norm, maps = draw_group_norm(torch.float64), padded_maps(torch.float64).requires_grad_()

    def run(x, weight, bias):
        with image_extents(extents):
            return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)

    assert torch.autograd.gradcheck(run, (maps, norm.weight, norm.bias), fast_mode=True)
    gradient = torch.autograd.grad(run(maps, norm.weight, norm.bias).square().sum(), maps)[0]
    images_of(gradient)[0].zero_()
    assert not gradient[0].any()  # the padding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_group_norm_that_sees_no_padding_computes_in_float32(dtype):
    norm, maps = draw_group_norm(), padded_maps().to(dtype)
    with image_extents(extents):
        found, exact = norm(maps), norm(maps.float())
    assert found.dtype == dtype
    assert torch.equal(found, exact.to(dtype))


@pytest.mark.parametrize("norm", ["", "BN", "GN"])
@pytest.mark.parametrize("relu", [False, True])
def test_a_conv_norm_is_a_convolution_then_a_norm_then_a_relu(norm, relu):
    layer = ConvNorm(4, 8, 3, stride=2, groups=2, norm=norm, relu=relu)
    assert (layer.bias is None) == bool(norm)
    x = torch.randn(2, 4, 9, 9)
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1, groups=2)
    if norm:
        expected = make_norm(norm, 8)(expected)
    assert torch.equal(layer(x), expected.relu() if relu else expected)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_padding_keeps_the_size(kernel_size):
    assert ConvNorm(1, 1, kernel_size)(torch.zeros(1, 1, 9, 10)).shape[-2:] == (9, 10)


def test_xavier_fill_is_uniform_by_fan_in():
    conv = nn.Conv2d(64, 256, 3)
    init_xavier(conv)
    bound = (3 / (64 * 9)) ** 0.5
    assert conv.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=1e-2)
    assert not conv.bias.any()


def test_xavier_of_glorot_and_bengio_is_uniform_by_both_fans():
    conv = nn.Conv2d(64, 256, 3)
    init_xavier(conv, "xavier")
    bound = (6 / ((64 + 256) * 9)) ** 0.5
    assert conv.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=1e-2)
    assert not conv.bias.any()


@pytest.mark.parametrize("prior_prob", [0.01, 0.5, 0.9])
def test_a_prior_is_the_score_of_a_feature_map_of_zeros(prior_prob):
    conv = nn.Conv2d(4, 8, 3, padding=1)
    init_prior(conv, prior_prob)
    scores = conv(torch.zeros(1, 4, 5, 5)).sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, prior_prob))


def test_outputs_are_ordered_by_level_then_row_then_column_then_anchor():
    # The value of channel c at (y, x) of level l reads l, y, x, c as decimal digits.
    levels = [
        torch.tensor(
            [
                [[1000 * level + 100 * y + 10 * x + c for x in range(width)] for y in range(height)]
                for c in range(6)
            ]
        )[None]
        for level, (height, width) in enumerate(((2, 3), (1, 2)))
    ]
    rows = by_anchor(levels, 3)
    assert rows.shape == (1, (2 * 3 + 1 * 2) * 2, 3)
    assert rows.flatten().tolist() == sorted(rows.flatten().tolist())
    assert rows[0, :3].tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12]]
