"""The sizes and pixels that detectron2, mmdetection and torchvision make of the same photograph.

A detector gives its published figures on the pixels that it was trained on, and the peers' differ
by some grey levels, and sometimes by a row or a column.
"""

from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

ResizeMethod = Literal["torch", "pillow", "opencv", "interpolate"]
Rounding = Literal["round", "floor"]


def shortest_edge_size(
    image_size: tuple[int, int],
    shorter: int,
    longest: int,
    *,
    method: ResizeMethod = "torch",
    rounding: Rounding = "round",
) -> tuple[int, int]:
    """The size of an image whose shorter side becomes ``shorter``, if the longer one allows it.

    The formulas agree but for the last bit, which decides where a side falls on a half or a whole.

    Args:
        image_size: Height and width in pixels.
        shorter: What the shorter side is to become.
        longest: What the longer side may become at most.
        method: See ``resize_image``.
        rounding: Of the sides, to the nearest or down.

    Returns:
        Height and width, of which none is 0.
    """
    height, width = image_size
    if method == "opencv" or rounding == "floor":  # mmdetection, torchvision: one scale at once
        scale = min(shorter / min(height, width), longest / max(height, width))
        sides = (scale * height, scale * width)
    else:  # detectron2: two, one after the other
        scale = shorter / min(height, width)
        sides = (shorter, scale * width) if height < width else (scale * height, shorter)
        scale = min(longest / max(sides), 1.0)
        sides = (sides[0] * scale, sides[1] * scale)
    spare = 0.5 if rounding == "round" else 0.0
    return max(int(sides[0] + spare), 1), max(int(sides[1] + spare), 1)


def resize_image(image: Tensor, size: tuple[int, int], method: ResizeMethod) -> Tensor:
    """Resize an image bilinearly.

    Args:
        image: (3, H, W) uint8; "torch" and "interpolate" take floating point as well.
        size: New height and width.
        method: "torch": torchvision's, antialiased. "pillow": detectron2's, antialiased too, but
            rounded elsewhere. "opencv": mmdetection's, not antialiased. "interpolate": that of
            torchvision's detection models, neither antialiased nor rounded.

    Returns:
        (3, h, w) of the image's type; float32 on the image's scale for "interpolate".

    Raises:
        ValueError: The image is not what the method takes.
    """
    if method == "torch":
        return v2.functional.resize(image, list(size), antialias=True)
    if method == "interpolate":
        images = image[None].to(torch.float32)
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)[0]
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(
            f"method '{method}' resizes uint8 images (3, H, W), got {image.dtype} of shape "
            f"{tuple(image.shape)}; put the resize before the transform that made it, or use "
            "method 'torch'"
        )
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    height, width = size
    if method == "pillow":
        shape = (width, height)
        resized = np.array(Image.fromarray(pixels).resize(shape, Image.Resampling.BILINEAR))
    else:
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1)
