"""The registry of evaluators: what one is, and what it is given."""

from ..registry import Registry
from .evaluator import DatasetEvaluator

EVALUATOR_REGISTRY = Registry(
    "evaluator",
    DatasetEvaluator,
    computed={
        "dataset": "the test data set in `data.test`",
        "output_dir": "`output_dir` and the data set's name",
    },
)
