"""What layers deep in a network may know of the batch that it computes: where its images end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class ImageExtents:
    """How much of a padded batch belongs to each image.

    Args:
        sizes: (N, 2) height and width in pixels; each image lies in the upper left corner.
        canvas: (height, width) of the batch.
    """

    def __init__(self, sizes: Tensor, canvas: tuple[int, int]) -> None:
        self.sizes = sizes
        self.canvas = canvas
        self._masks: dict[tuple[int, int], Tensor] = {}

    def mask(self, x: Tensor) -> Tensor | None:
        """Which cells of maps (N, C, H, W) belong to their image: (N, 1, H, W), float32 0 or 1.

        None for tensors that are no maps of this batch: those of another number of images or of
        another size than the canvas divided by a power of two, rounded up.
        """
        if x.ndim != 4 or len(x) != len(self.sizes):
            return None
        cells = (x.shape[-2], x.shape[-1])
        if cells not in self._masks:
            stride = self._stride(cells)
            if stride is None:
                return None
            # A cell belongs to the image whose pixel is its first: ceil(size / stride) of them.
            rows, columns = (torch.arange(n, device=x.device) * stride for n in cells)
            is_row, is_column = rows < self.sizes[:, :1], columns < self.sizes[:, 1:]
            self._masks[cells] = (is_row[:, :, None] & is_column[:, None, :])[:, None].float()
        return self._masks[cells]

    def _stride(self, cells: tuple[int, int]) -> int | None:
        height, width = self.canvas
        for i in range(max(self.canvas).bit_length() + 1):
            stride = 2**i
            if (-(-height // stride), -(-width // stride)) == cells:
                return stride
        return None


class _Current(threading.local):
    # Not a ContextVar: torch.compile takes a function that sets this one as a whole.
    extents: ImageExtents | None = None


_current = _Current()


@contextmanager
def image_extents(extents: ImageExtents | None) -> Iterator[None]:
    """Let layers within find these extents; with None they take all of a map for image."""
    outer, _current.extents = _current.extents, extents
    try:
        yield
    finally:
        _current.extents = outer


def current_extents() -> ImageExtents | None:
    """Where the images of the present batch end; None where there is no padding to be told."""
    return _current.extents
