"""One of two processes: python evaluate_a_share.py <rank> <folder> <seed of the data>."""

import json
import pathlib
import sys

import torch.distributed as dist
from conftest import json_ground_truth, model_outputs, random_content

from detlite.errors import DataError
from detlite.evaluation import COCOEvaluator, DetectionEvaluator, inference_on_dataset

SHARES = [slice(0, 8), slice(5, None)]  # images 5 to 7 are seen by both


class FailsInMain(DetectionEvaluator):
    """Cannot make numbers of what it collected."""

    def score(self, detections):
        raise DataError("no numbers")


def main(rank, folder, seed):
    """Evaluate a share and write what came of it."""
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    content, results = random_content(seed)
    truth = json_ground_truth(content)
    pairs = model_outputs(truth, results)
    outputs = {entry["image_id"]: output for entry, output in pairs}
    loader = [[entry] for entry, _ in pairs[SHARES[rank]]]

    def model(batch):
        return [outputs[entry["image_id"]] for entry in batch]

    evaluator = COCOEvaluator(dataset=truth, output_dir=folder / "inference")
    found = inference_on_dataset(model, loader, evaluator)
    try:
        inference_on_dataset(model, loader, FailsInMain(truth, None))
    except (DataError, RuntimeError) as error:
        failure = type(error).__name__
    (folder / f"{rank}.json").write_text(json.dumps({"results": found, "failure": failure}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
