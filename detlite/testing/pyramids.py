"""Checks of what makes feature maps: backbones, necks, extra levels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..modeling import Backbone, ExtraLevels, Neck
from ..structures import ShapeSpec
from .catalogue import check
from .probes import each_tensor, make_input, run
from .report import Broken
from .subject import IMAGE_SIZE, ODD_SIZE, Size, Subject

PYRAMIDS = ("backbone", "neck")


def _shapes(network: Any) -> dict[str, ShapeSpec]:
    shapes = network.output_shape()
    wrong = [name for name, spec in shapes.items() if not isinstance(spec, ShapeSpec)]
    if wrong or not shapes:
        raise Broken(f"output_shape() must give a ShapeSpec a map by name, got {shapes}")
    return dict(shapes)


def _check_maps(maps: Mapping[str, Tensor], shapes: Mapping[str, ShapeSpec], size: Size) -> None:
    if [*maps] != [*shapes]:
        raise Broken(f"forward gives {', '.join(maps)}, output_shape() says {', '.join(shapes)}")
    for name, spec in shapes.items():
        found = tuple(maps[name].shape[-2:])
        expected = tuple(-(-side // spec.stride) for side in size)
        if found != expected:
            raise Broken(
                f"map '{name}' of stride {spec.stride} has (height, width) {found} for images of "
                f"{size}; expected {expected}, ceil(side / stride)"
            )


@check("backbone", of=Backbone, line="Channels and stride of each map that ``forward`` returns")
def the_maps_of_a_backbone_are_those_of_output_shape(subject: Subject) -> None:
    """Maps have the names, the channels and the strides that ``output_shape()`` says."""
    _check_maps_of(subject)


@check("neck", of=Neck, line="Channels and stride of each level, from fine to coarse: p3, p4, ...")
def the_levels_of_a_neck_are_those_of_output_shape(subject: Subject) -> None:
    """Levels have the names, the channels and the strides that ``output_shape()`` says."""
    _check_maps_of(subject)


def _check_maps_of(subject: Subject) -> None:
    network = subject.build().eval()
    with torch.no_grad():
        maps = network(make_input(subject))
    if not isinstance(maps, dict):
        raise Broken(f"forward gives {type(maps).__name__}; a dict of maps by name was expected")
    shapes = _shapes(network)
    _check_maps(maps, shapes, IMAGE_SIZE)
    for name, spec in shapes.items():
        if maps[name].shape[1] != spec.channels:
            raise Broken(
                f"map '{name}' has {maps[name].shape[1]} channels, output_shape() says "
                f"{spec.channels}"
            )


@check("backbone", of=Backbone, line="from fine to coarse")
def a_backbone_goes_from_fine_to_coarse(subject: Subject) -> None:
    """Maps come from fine to coarse, in ``forward`` and in ``output_shape()``."""
    _check_order(subject)


@check("neck", of=Neck, line="from fine to coarse: p3, p4, ...")
def a_neck_goes_from_fine_to_coarse(subject: Subject) -> None:
    """Levels come from fine to coarse, in ``forward`` and in ``output_shape()``."""
    _check_order(subject)


def _check_order(subject: Subject) -> None:
    network = subject.build().eval()
    strides = [spec.stride for spec in _shapes(network).values()]
    if strides != sorted(strides):
        raise Broken(f"output_shape() has strides {strides}; they must rise")
    with torch.no_grad():
        heights = [value.shape[-2] for value in run(network, make_input(subject)).values()]
    if heights != sorted(heights, reverse=True):
        raise Broken(f"forward gives maps of heights {heights}; they must fall")


@check("backbone", of=Backbone, line="Sizes are rounded up: ``ceil(H / stride)``")
def sizes_of_maps_are_rounded_up(subject: Subject) -> None:
    """Images of odd sizes give maps of ``ceil(side / stride)`` cells."""
    network = subject.build().eval()
    with torch.no_grad():
        _check_maps(run(network, make_input(subject, size=ODD_SIZE)), _shapes(network), ODD_SIZE)


@check("neck", of=Neck, line="of the sizes of ``grid_sizes``")
def sizes_of_levels_are_those_of_grid_sizes(subject: Subject) -> None:
    """Images of odd sizes give the levels that ``grid_sizes`` says."""
    network = subject.build().eval()
    with torch.no_grad():
        levels = run(network, make_input(subject, size=ODD_SIZE))
    expected = {name: tuple(size) for name, size in network.grid_sizes(ODD_SIZE).items()}
    found = {name: tuple(level.shape[-2:]) for name, level in levels.items()}
    if found != expected:
        raise Broken(f"images of {ODD_SIZE} give levels {found}; grid_sizes says {expected}")


@check("neck", of=Neck, line="The backbone's maps to levels of equal channels")
def levels_have_equal_channels(subject: Subject) -> None:
    """All levels have the same number of channels, for one head serves them all."""
    channels = {name: spec.channels for name, spec in _shapes(subject.build()).items()}
    if len({*channels.values()}) > 1:
        raise Broken(f"levels have {channels} channels")


@check("neck", of=Neck, line="Given: ``input_shape``, the backbone's ``output_shape()``.")
def a_neck_takes_maps_by_name(subject: Subject) -> None:
    """A neck takes maps by their names, in whichever order the dict has them."""
    network, maps = subject.build().eval(), make_input(subject)
    with torch.no_grad():
        expected = run(network, maps)
        found = run(network, dict(reversed(maps.items())))
    for name, value in expected.items():
        if name not in found or not torch.allclose(found[name], value):
            raise Broken(f"level '{name}' is another where the maps come in another order")


@check(*PYRAMIDS)
def one_image_is_enough_in_training(subject: Subject) -> None:
    """A batch of one image can be trained on: the share of a process may be that small."""
    network = subject.build().train()
    try:
        run(network, make_input(subject, size=(256, 256), num_images=1))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise Broken(f"{error}: a batch normalization sees a single pixel") from error


@check("backbone", of=Backbone, line="names of submodules, from input to output.")
def layers_are_names_of_submodules(subject: Subject) -> None:
    """``layers()`` names submodules."""
    network = subject.build()
    known = {name for name, _ in network.named_modules()}
    wrong = [name for name in network.layers() if name not in known]
    if wrong:
        raise Broken(f"layers() names {', '.join(wrong)}, which the backbone does not have")


@check("extra levels", of=ExtraLevels, line="maps to ``num_levels`` maps.")
def there_are_as_many_extra_levels_as_said(subject: Subject) -> None:
    """There are ``num_levels`` maps, of the pyramid's channels."""
    network = subject.build().eval()
    with torch.no_grad():
        maps = list(run(network, make_input(subject)).values())
    if len(maps) != network.num_levels:
        raise Broken(f"forward gives {len(maps)} maps, num_levels is {network.num_levels}")
    wanted = subject.computed()["out_channels"]
    wrong = [value.shape[1] for value in maps if value.shape[1] != wanted]
    if wrong:
        raise Broken(f"a map has {wrong[0]} channels, out_channels is {wanted}")


@check("extra levels", of=ExtraLevels, line="Each has half the size of the one before, rounded up.")
def extra_levels_halve_and_round_up(subject: Subject) -> None:
    """Each map has half the size of the one before, rounded up."""
    network, features = subject.build().eval(), make_input(subject, size=ODD_SIZE)
    before = min(tuple(value.shape[-2:]) for value in features.values())
    with torch.no_grad():
        maps = run(network, features)
    for name, value in maps.items():
        expected, found = tuple(-(-side // 2) for side in before), tuple(value.shape[-2:])
        if found != expected:
            raise Broken(f"{name} has (height, width) {found} after {before}; expected {expected}")
        before = found


@check("backbone")
def empty_padding_is_no_failure(subject: Subject) -> None:
    """Images of zeros, as padding is, give finite maps in training and evaluation."""
    zeros = each_tensor(torch.zeros_like, make_input(subject))
    for network in (subject.build().train(), subject.build().eval()):
        with torch.no_grad():
            for name, value in run(network, zeros).items():
                if not torch.isfinite(value).all():
                    raise Broken(f"map '{name}' of an image of zeros is not finite")
