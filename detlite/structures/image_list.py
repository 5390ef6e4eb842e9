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
        cls, images: Sequence[Tensor], *, size_divisor: int = 1, pad_value: float = 0.0
    ) -> "ImageList":
        """Pad images (C, h, w) to a common size that ``size_divisor`` divides.

        Raises:
            ValueError: There is no image, or one has no (C, h, w) shape.
        """
        if not images:
            raise ValueError("a batch needs at least one image, got none")
        for image in images:
            if image.ndim != 3:
                raise ValueError(f"images must have shape (C, h, w), got {tuple(image.shape)}")
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        height, width = (
            -(-max(size[axis] for size in sizes) // size_divisor) * size_divisor for axis in (0, 1)
        )
        batch = images[0].new_full((len(images), images[0].shape[0], height, width), pad_value)
        for slot, image, (h, w) in zip(batch, images, sizes, strict=True):
            slot[:, :h, :w].copy_(image)
        return cls(batch, sizes)
