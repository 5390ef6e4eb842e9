"""Check the components of a file against the contracts of their kinds.

python -m detlite.testing my_module.py
python -m detlite.testing my_module.py -k TinyNet --set width=8
python -m detlite.testing my_module.py --block '{name: TinyNet, width: 8}'
python -m detlite.testing --config my.yaml

With a config, components have the keys that it gives them, the parts around them are its own, and
the number of classes is that of its training data.
Exit code 0: all is well, 1: a component breaks a contract, 2: a mistake in the command.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from ..config import Config, load_config
from ..config.loader import import_component
from ..errors import ConfigError
from ..registry import Block, Registry
from ..utils.cli import run_cli
from .discovery import around_of, blocks_named, registered_by, snapshot
from .report import Report
from .running import examine
from .subject import Surroundings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m detlite.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("module", nargs="?", metavar="my_module.py", help="a file, or a module")
    parser.add_argument("--config", metavar="X.yaml", help="take keys and surroundings from it")
    parser.add_argument("-k", metavar="NAME", help="only components with this in their name")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="a key, in YAML syntax"
    )
    parser.add_argument("--block", metavar="'{name: X, ...}'", help="the component's whole block")
    parser.add_argument(
        "--num-classes", type=int, metavar="K", help="classes of the small model (the config's, 5)"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Find the components, check each, tell; exits with 1 if one breaks its contract."""
    if not arguments.module and not arguments.config:
        raise ConfigError("give a file that registers components, or --config X.yaml")
    before = snapshot()
    config = load_config(arguments.config) if arguments.config else None
    if arguments.module:
        import_component(arguments.module, "the command line")
    found = [
        (registry, name) for registry, name in registered_by(before) if (arguments.k or "") in name
    ]
    if not found:
        source = arguments.module or arguments.config
        named = f" with '{arguments.k}' in its name" if arguments.k else ""
        raise ConfigError(
            f"{source} registers no component{named}; decorate the class with e.g. "
            "@BACKBONE_REGISTRY.register"
        )
    blocks = [
        (registry, block)
        for registry, name in found
        for block in _blocks(registry, name, arguments, config)
    ]
    around = around_of(config, arguments.num_classes)
    if not _tell(blocks, around, compile=not arguments.no_compile):
        sys.exit(1)


def _blocks(
    registry: Registry, name: str, arguments: argparse.Namespace, config: Config | None
) -> list[Block]:
    """The blocks that a component is checked with: its own in the config, or one from defaults."""
    given = _mapping(arguments.block, "--block") if arguments.block else {}
    if given.get("name") == name:
        return [Block(given)]
    values = dict(_assignment(text) for text in arguments.set)
    blocks = blocks_named(name, registry, config.to_dict()) if config else []
    return [Block({**block, **values}) for block in blocks] or [Block(name=name, **values)]


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: give key=value")
    return key, yaml.safe_load(value)


def _mapping(text: str, option: str) -> dict[str, Any]:
    value = yaml.safe_load(text)
    if not isinstance(value, dict) or "name" not in value:
        raise ConfigError(f"{option} must be a block '{{name: X, key: value}}', got {text!r}")
    return value


def _tell(blocks: Sequence[tuple[Registry, Block]], around: Surroundings, *, compile: bool) -> bool:
    reports: list[Report] = []
    for registry, block in blocks:
        report = examine(registry, block, around, compile=compile)
        print(report, flush=True)
        reports.append(report)
    if len(reports) > 1:
        print("\n" + "\n".join(report.headline() for report in reports))
    return not any(report.failed for report in reports)


if __name__ == "__main__":
    run_cli(main, parser())
