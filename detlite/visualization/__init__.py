"""Pictures of what a model finds."""

from ..utils.picture_file import write_picture
from .colormap import class_color
from .grid import make_grid
from .samples import Found, draw_beside_truth, draw_found, draw_truth, found_in
from .visualizer import Visualizer

__all__ = [
    "Found",
    "Visualizer",
    "class_color",
    "draw_beside_truth",
    "draw_found",
    "draw_truth",
    "found_in",
    "make_grid",
    "write_picture",
]
