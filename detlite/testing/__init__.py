"""Does a component keep the contract of its kind? Checks for the author of one.

``python -m detlite.testing my_module.py`` checks every component that a file registers;
``check_component`` does it from a test. See docs/your_component.md.
"""

from .report import ConformanceError, Report
from .running import check_component

__all__ = ["ConformanceError", "Report", "check_component"]
