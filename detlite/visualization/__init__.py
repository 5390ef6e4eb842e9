"""Pictures of what a detector finds."""

from .colormap import class_color
from .grid import make_grid
from .visualizer import Visualizer
from .writing import write_picture

__all__ = ["Visualizer", "class_color", "make_grid", "write_picture"]
