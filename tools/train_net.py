"""Train and evaluate the model of a config.

python tools/train_net.py --config-file configs/quickstart.yaml
python tools/train_net.py --config-file X.yaml --resume solver.max_iter=20000
python tools/train_net.py --config-file X.yaml --eval-only --weights model_final.pth
python tools/train_net.py --config-file X.yaml --eval-only --weights detectron2://.../model_final.pkl
python tools/train_net.py --config-file X.yaml --print-config
"""

import argparse
import json
import logging
from pathlib import Path

from detlite import Config, ConfigError, build_model, build_trainer, evaluate_model
from detlite.config import check_tree, read_tree
from detlite.engine import build_test_loaders
from detlite.utils.cli import run_cli
from detlite.utils.env import environment
from detlite.utils.logger import setup_logger

logger = logging.getLogger("detlite.train_net")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="X.yaml", help="the config")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in output_dir"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a path, a URL or a published name; the same as model.weights=FILE",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the resolved config, with the place that each value comes from, and stop",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew in an output_dir that holds a run"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="values that override the config's"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    overrides = list(arguments.overrides)
    if arguments.weights is not None:
        # As a JSON string, so that YAML takes the path as it is.
        overrides.append(f"model.weights={json.dumps(arguments.weights)}")
    tree = read_tree(arguments.config_file, overrides)
    config = check_tree(tree, arguments.config_file)
    if arguments.print_config:
        print(config.to_yaml(tree), end="")
        return
    if arguments.eval_only:
        evaluate(config, arguments.config_file)
        return
    if not arguments.resume and not arguments.overwrite:
        check_output_dir(config)
    setup_logger(config.output_dir)
    logger.info("environment: %s", ", ".join(f"{k} {v}" for k, v in environment().items()))
    build_trainer(config, resume=arguments.resume).train()
    logger.info("done; everything is in %s", config.output_dir)


def evaluate(config: Config, config_file: str) -> None:
    """Evaluate ``model.weights``, or what the last run in ``output_dir`` made."""
    setup_logger()
    if not config.model.weights:
        final = Path(config.output_dir) / "model_final.pth"
        if not final.is_file():
            raise ConfigError(
                f"--eval-only needs weights: give --weights PATH (there is no {final} either)"
            )
        config.model["weights"] = str(final)
    if not config.data.test:
        raise ConfigError(f"--eval-only needs a data set under data.test in {config_file}")
    loaders = build_test_loaders(config)
    class_names = loaders[0].dataset.class_names
    evaluate_model(config, build_model(config, class_names, complete=True), loaders)


def check_output_dir(config: Config) -> None:
    """Protect an earlier run's files."""
    if (Path(config.output_dir) / "last_checkpoint").exists():
        raise ConfigError(
            f"output_dir {config.output_dir} holds a run already; --resume goes on with it, "
            "output_dir=ANOTHER keeps it, --overwrite begins anew in it"
        )


if __name__ == "__main__":
    run_cli(main, parser())
