"""A detectron2 RetinaNet YAML becomes a config of ours; no code of the file ever runs."""

from .convert import Translation, convert_detectron2_yaml
from .settings import Remark
from .yaml_file import Stated, read_detectron2_yaml

__all__ = ["Remark", "Stated", "Translation", "convert_detectron2_yaml", "read_detectron2_yaml"]
