"""What a solver section will do, before the run: curves, a table, a picture."""

from .curves import Curve, SchedulePreview, preview_schedule
from .picture import draw_preview
from .text import preview_table, write_csv

__all__ = [
    "Curve",
    "SchedulePreview",
    "draw_preview",
    "preview_schedule",
    "preview_table",
    "write_csv",
]
