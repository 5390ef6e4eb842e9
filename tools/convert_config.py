"""Translate a config of another framework: a detectron2 RetinaNet YAML becomes one of ours.

    python tools/convert_config.py retinanet_R_50_FPN_1x.yaml --output retinanet_r50.yaml
    python tools/convert_config.py retinanet_R_50_FPN_1x.yaml --strict > retinanet_r50.yaml

Keys without a counterpart are listed in a table, and as comments at the end of the YAML; nothing is
dropped in silence. Nothing in the file runs: Python tags other than arithmetic are refused.
"""

import argparse
import sys
from pathlib import Path

from detlite import UserError
from detlite.config.from_detectron2 import Translation, convert_detectron2_yaml
from detlite.config.from_detectron2.text import remarks_tables
from detlite.utils.cli import run_cli


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="detectron2.yaml", help="with its bases beside it")
    parser.add_argument("--output", metavar="ours.yaml", help="written here, not to stdout")
    parser.add_argument(
        "--strict", action="store_true",
        help="write nothing and fail if a key that has an effect there is lost, or a data set has "
        "to be filled in",
    )  # fmt: skip
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Translate, write, tell what is missing."""
    translation = convert_detectron2_yaml(arguments.config)
    # The YAML alone goes to stdout, so that it can be redirected.
    console = sys.stdout if arguments.output else sys.stderr
    if arguments.strict and not translation.is_complete:
        print(remarks_tables(translation.remarks), file=console)
        count = sum(remark.kind != "no loss" for remark in translation.remarks)
        raise UserError(
            f"{arguments.config}: {count} of these keys have an effect in detectron2 that the "
            "translation lacks; without --strict it is written nevertheless"
        )
    if arguments.output:
        write(Path(arguments.output), arguments.config, translation.text)
    else:
        print(translation.text, end="")
    print(summary(translation), file=console)


def summary(translation: Translation) -> str:
    """The tables of remarks, or that there are none."""
    if not translation.remarks:
        return "every key is translated"
    return remarks_tables(translation.remarks)


def write(output: Path, source: str, text: str) -> None:
    """Write the YAML.

    Raises:
        UserError: It cannot be written, or would overwrite the source.
    """
    if output.exists() and output.resolve() == Path(source).resolve():
        raise UserError(f"--output {output} is the file that is translated; give another name")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error}") from None
    print(f"wrote {output}")


if __name__ == "__main__":
    run_cli(main, parser())
