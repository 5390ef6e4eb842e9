"""A training step as a file, and where in it the first number arose that is not finite."""

from .bundle import StepBundle, read_bundle
from .recording import record_step
from .replaying import Replay, replay
from .writing import write_bundle

__all__ = ["Replay", "StepBundle", "read_bundle", "record_step", "replay", "write_bundle"]
