"""Write weights in the form of another framework.

python tools/export_weights.py --weights model_final.pth --format detectron2 --output model.pkl
python tools/export_weights.py --weights model_final.pth --format torchvision --output model.pth
python tools/export_weights.py --weights model_final.pth --format mmdet --output model.pth
python tools/export_weights.py --weights model_final.pth --format safetensors --output m.safetensors
"""

import argparse
import logging
from pathlib import Path

from detlite import UserError
from detlite.utils.cli import run_cli
from detlite.utils.logger import setup_logger

logger = logging.getLogger("detlite.export_weights")

# How the peer reads the file.
READERS = {
    "detectron2": "DetectionCheckpointer(model).load({path!r})",
    "torchvision": "retinanet_resnet50_fpn{version}(weights=None, weights_backbone=None, "
    "num_classes={classes}).load_state_dict(torch.load({path!r}), strict=True)",
    "mmdet": "mmengine.runner.load_checkpoint(model, {path!r}, strict=True)",
    "safetensors": "detlite.Predictor({path!r})",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="of detlite, or of any peer that it reads"
    )
    parser.add_argument("--format", required=True, choices=list(READERS))
    parser.add_argument("--output", required=True, metavar="FILE", help="the new file")
    parser.add_argument(
        "--config-file",
        metavar="X.yaml",
        help="the config of the model, for the weights of another framework",
    )
    parser.add_argument(
        "--trust-imports", action="store_true", help="run the files that the checkpoint imports"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    setup_logger()
    output = Path(arguments.output)
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; give the name of the new file in it")
    if output.exists() and not arguments.overwrite:
        raise UserError(f"--output {output} is there already; --overwrite replaces it")
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from detlite import Predictor

    predictor = Predictor(
        arguments.weights,
        config=arguments.config_file,
        device="cpu",
        trust_imports=arguments.trust_imports,
    )
    try:
        notes = predictor.export(arguments.format, output)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error}") from None
    names = predictor.class_names
    reader = READERS[arguments.format].format(
        path=str(arguments.output),
        version="_v2" if predictor.config.model.head.get("norm") else "",
        classes=len(names),
    )
    logger.info("wrote %s, with %d classes: %s", arguments.output, len(names), ", ".join(names))
    logger.info("it is read by %s", reader)
    if notes:
        logger.warning(
            "%s's own model has other settings; build it with those of these weights, or it "
            "computes something else:%s",
            arguments.format,
            "".join(f"\n    {note}" for note in notes),
        )


if __name__ == "__main__":
    run_cli(main, parser())
