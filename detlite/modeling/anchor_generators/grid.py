"""Anchors of a few sizes and shapes on every cell of every level."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ...ranges import PositiveFloat, PositiveLayers, Size
from ..interfaces import AnchorGenerator
from ..registries import ANCHOR_GENERATOR_REGISTRY


@ANCHOR_GENERATOR_REGISTRY.register
class GridAnchorGenerator(AnchorGenerator):
    """RetinaNet's anchors (section 4): octave scales times aspect ratios.

    Args:
        base_size: Side of the smallest square anchor of a level, in strides of that level.
        scales_per_octave: Sizes between a level and the next: ``base_size * 2**(i / scales)``.
        sizes: The sides of each level in pixels, instead of the two above.
        aspect_ratios: Height by width; the area stays.
        offset: Place of the first anchor's centre in its cell: 0 its corner, 0.5 its middle.
        order: How the anchors of a cell are numbered: "size_major" all ratios of the first size
            first (detectron2), "ratio_major" all sizes of the first ratio first (torchvision,
            mmdetection). It must be that of the weights.
        rounding: "torchvision" cuts sizes to whole pixels and rounds the corners around the cell.
        cell_spacing: Distance of cells: the level's "stride", or "image" for torchvision's image
            size divided by grid size, which is smaller where a level rounds up.
        inclusive: Move the far corner of each anchor one pixel further, which is ODTK's function:
            there a box ends with its last pixel and is ``x2 - x1 + 1`` wide. ODTK's anchors are
            these with ``offset: 0.5, aspect_ratios: [1.0, 2.0, 0.5]``.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        base_size: Size = 4.0,
        scales_per_octave: PositiveLayers = 3,
        sizes: list[list[Size]] | None = None,
        aspect_ratios: Annotated[tuple[PositiveFloat, ...], Meta(min_length=1)] = (0.5, 1.0, 2.0),
        offset: Annotated[float, Meta(ge=0, lt=1)] = 0.0,
        order: Literal["size_major", "ratio_major"] = "size_major",
        rounding: Literal["none", "torchvision"] = "none",
        cell_spacing: Literal["stride", "image"] = "stride",
        inclusive: bool = False,
    ) -> None:
        super().__init__()
        if sizes is None:
            octave = [2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
            sizes = [[base_size * stride * scale for scale in octave] for stride in strides]
        if len(sizes) != len(strides) or len({len(level) for level in sizes}) != 1 or not sizes[0]:
            raise ValueError(
                f"sizes must hold {len(strides)} lists, one a level, of equal length, got {sizes}"
            )
        self.strides = list(strides)
        self.offset = offset
        self.cell_spacing = cell_spacing
        self.num_anchors = len(sizes[0]) * len(aspect_ratios)
        for i, level in enumerate(sizes):
            cell_anchors = _cell_anchors(level, aspect_ratios, order, rounding)
            if inclusive:
                cell_anchors[:, 2:] += 1
            self.register_buffer(f"cell_anchors_{i}", cell_anchors, persistent=False)

    def forward(
        self, grid_sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Anchors (H * W * A, 4) of each level, XYXY in pixels of the padded image."""
        anchors = []
        for i, ((rows, columns), stride) in enumerate(zip(grid_sizes, self.strides, strict=True)):
            cell_anchors = getattr(self, f"cell_anchors_{i}")
            step_y, step_x = stride, stride
            if self.cell_spacing == "image":
                step_y, step_x = image_size[0] // rows, image_size[1] // columns
            x = (torch.arange(columns, device=cell_anchors.device) + self.offset) * step_x
            y = (torch.arange(rows, device=cell_anchors.device) + self.offset) * step_y
            y, x = torch.meshgrid(y.to(cell_anchors), x.to(cell_anchors), indexing="ij")
            shifts = torch.stack((x, y, x, y), dim=-1).view(-1, 1, 4)
            anchors.append((shifts + cell_anchors).view(-1, 4))
        return anchors


def _cell_anchors(
    sizes: Sequence[float], aspect_ratios: Sequence[float], order: str, rounding: str
) -> Tensor:
    """Anchors (A, 4) around the origin."""
    size = torch.tensor([int(s) if rounding == "torchvision" else s for s in sizes])[:, None]
    ratio = torch.tensor(aspect_ratios)[None, :]
    size, ratio = torch.broadcast_tensors(size.float(), ratio.float())
    if order == "ratio_major":
        size, ratio = size.T, ratio.T
    width = (size / ratio.sqrt()).flatten() / 2
    height = (size * ratio.sqrt()).flatten() / 2
    corners = torch.stack((-width, -height, width, height), dim=1)
    return corners.round() if rounding == "torchvision" else corners
