"""Necks, one idea a file; importing this package registers them."""

from .bifpn import BiFPN
from .extra_levels import P6P7
from .fpn import FPN
from .pafpn import PAFPN

__all__ = ["FPN", "P6P7", "PAFPN", "BiFPN"]
