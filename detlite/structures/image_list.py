"""Images of several sizes in one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageList:
    """A padded batch.

    Attributes:
        tensor: (N, C, H, W); each image lies in the upper left corner, the rest is padding.
        image_sizes: (height, width) of each image without padding.
    """

    tensor: Tensor
    image_sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.image_sizes)

    @classmethod
    def from_tensors(
        cls,
        images: Sequence[Tensor],
        *,
        size_divisor: int = 1,
        pad_value: float = 0.0,
        canvas: tuple[int, int] | None = None,
    ) -> "ImageList":
        """Pad images (C, h, w) to a common size that ``size_divisor`` divides.

        Args:
            images: At least one.
            size_divisor: Height and width are rounded up to a multiple of it.
            pad_value: Of the padding.
            canvas: (height, width) to pad to, before the rounding; None: the greatest of these.

        Raises:
            ValueError: There is no image, one has no (C, h, w) shape, or one exceeds the canvas.
        """
        if not images:
            raise ValueError("a batch needs at least one image, got none")
        for image in images:
            if image.ndim != 3:
                raise ValueError(f"images must have shape (C, h, w), got {tuple(image.shape)}")
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        greatest = max(h for h, _ in sizes), max(w for _, w in sizes)
        canvas = canvas or greatest
        if greatest[0] > canvas[0] or greatest[1] > canvas[1]:
            raise ValueError(f"images up to (height, width) {greatest} exceed the canvas {canvas}")
        height, width = (-(-side // size_divisor) * size_divisor for side in canvas)
        batch = images[0].new_full((len(images), images[0].shape[0], height, width), pad_value)
        for slot, image, (h, w) in zip(batch, images, sizes, strict=True):
            slot[:, :h, :w].copy_(image)
        return cls(batch, sizes)
