"""The place of a few images in the batch of a step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class BatchShare:
    """What a part of a batch must know of the whole, so that the sum of all parts is the whole.

    A batch is computed in parts where several processes share it, or where one process
    computes it piece by piece.

    Attributes:
        canvas: (height, width) that every image of the whole batch is padded to, before what the
            preprocessor rounds up to; the greatest height and the greatest width of all images.
        weights: (n,) what the loss sums of the part's n images are multiplied by.
    """

    canvas: tuple[int, int]
    weights: Tensor
