"""From YAML to a checked config: ``load_config``."""

from .loader import check_tree, load_config, parse_config, read_tree
from .schema import Config

__all__ = ["Config", "check_tree", "load_config", "parse_config", "read_tree"]
