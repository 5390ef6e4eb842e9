"""Numbers with a range or a unit, for the annotations of components.

The config check enforces ranges. Units say what scales with the batch size, see
``solver/batch_scaling.py``; an annotation may have both.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta


@dataclass(frozen=True)
class Unit:
    """What the number of an annotation counts or measures."""

    of: Literal["iterations", "learning rate", "other"]


PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

# Upper limits are far above what anybody uses, and far below what would exhaust a machine.
Layers = Annotated[int, Meta(ge=0, le=1000)]
PositiveLayers = Annotated[int, Meta(ge=1, le=1000)]
Channels = Annotated[int, Meta(ge=1, le=65536)]
Pixels = Annotated[int, Meta(ge=1, le=100_000)]
BatchSize = Annotated[int, Meta(ge=1, le=1_000_000)]
Processes = Annotated[int, Meta(ge=0, le=1000)]
Size = Annotated[float, Meta(gt=0, le=100_000)]

Iterations = Annotated[int, Meta(ge=0), Unit("iterations")]
PositiveIterations = Annotated[int, Meta(ge=1), Unit("iterations")]
LearningRate = Annotated[float, Meta(ge=0), Unit("learning rate")]
# An integer of a schedule that is no number of iterations, such as a number of cycles.
Count = Annotated[int, Meta(ge=0), Unit("other")]
