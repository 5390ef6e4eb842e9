"""``convert_detectron2_yaml``: a detectron2 RetinaNet YAML becomes a config of ours."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ..loader import parse_config
from .data import data_section
from .model import model_section
from .settings import Remark, Settings
from .solver import solver_section, test_section, top_keys, train_section
from .text import config_text
from .yaml_file import Stated, read_detectron2_yaml

META_ARCHITECTURE = "MODEL.META_ARCHITECTURE"


@dataclass(frozen=True)
class Translation:
    """A config of ours.

    Attributes:
        text: Its YAML, which passes ``load_config``, with the remarks as comments at the end.
        remarks: The keys of detectron2 that are not in it, or not as they were.
    """

    text: str
    remarks: tuple[Remark, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all that has an effect in detectron2 has it here too, and nothing is open."""
        return all(remark.kind == "no loss" for remark in self.remarks)


def convert_detectron2_yaml(path: str | os.PathLike[str]) -> Translation:
    """Translate a YAML of detectron2's RetinaNet; what it does not state is detectron2's default.

    Raises:
        ConfigError: It cannot be read, is of another model, or holds values that detectron2 or
            our components refuse; with every one of them.
    """
    stated = read_detectron2_yaml(path)
    _check_kind(stated, path)
    settings = Settings(stated)
    settings.get(META_ARCHITECTURE)
    settings.get("VERSION")
    config = {
        **top_keys(settings),
        "model": model_section(settings),
        "data": data_section(settings),
        "solver": solver_section(settings),
        "train": train_section(settings),
        "test": test_section(settings),
    }
    settings.finish()
    if settings.problems:
        raise ConfigError("\n".join([f"{path}: it cannot be translated", *_list(settings)]))
    order = {"lost": 0, "fill in": 1, "no loss": 2}
    remarks = tuple(sorted(settings.remarks, key=lambda remark: order[remark.kind]))
    text = config_text(config, _first_comment(path, stated), remarks)
    # Values that only our components refuse, such as a learning rate below 0.
    parse_config(text, f"the translation of {path}")
    return Translation(text, remarks)


def _list(settings: Settings) -> list[str]:
    return [f"  - {problem}" for problem in settings.problems]


def _first_comment(path: str | os.PathLike[str], stated: Mapping[str, Stated]) -> list[str]:
    files = {entry.place.rpartition(":")[0]: None for entry in stated.values()}
    bases = [Path(file).name for file in files if Path(file).name != Path(path).name]
    with_bases = f" with {', '.join(bases)}" if bases else ""
    return [f"{Path(path).name}{with_bases} of detectron2, translated by tools/convert_config.py."]


def _check_kind(stated: Mapping[str, Stated], path: str | os.PathLike[str]) -> None:
    """Raise a ConfigError unless this is a RetinaNet of detectron2's present version."""
    if any(key == "model" or key.startswith("model.") for key in stated):
        raise ConfigError(
            f"{path}: a config of detectron2 has MODEL in capitals; this is a config of detlite "
            "already, or a LazyConfig's dump, which is not translated"
        )
    version = stated.get("VERSION", Stated(2, ""))
    old = [key for key in ("MODEL.WEIGHT", "TEST.AUG_ON") if key in stated]
    if version.value != 2 or (old and "VERSION" not in stated):
        why = f"{version.place}: VERSION is {version.value!r}" if version.value != 2 else (
            f"{stated[old[0]].place}: {old[0]} is a key of VERSION 1"
        )  # fmt: skip
        raise ConfigError(
            f"{why}, only 2 is translated. Let detectron2 bring it up to date: get_cfg(), "
            "merge_from_file(path), then write cfg.dump() to a file"
        )
    kind = stated.get(META_ARCHITECTURE, Stated("GeneralizedRCNN", "by detectron2's default"))
    if kind.value != "RetinaNet":
        raise ConfigError(
            f"{path}: {META_ARCHITECTURE} is {kind.value!r} ({kind.place}); only RetinaNet is "
            "translated, other models have no counterpart here"
        )
