"""What the tests of several processes look at: python run_parallel.py <folder> quick|slow.

Writes ``results.pt`` into the folder: "cases", {case: {(processes, parts): what came of it, by
rank}}, and what each function of ``collectives`` returned, by rank.
"""

import sys

import torch
from collectives import run_bit_equality, run_mistakes, run_norms, run_order, run_sync
from layouts import LAYOUTS, run_cases
from ranks import run_ranks

from detlite.utils.distributed import world_size

# What else is asked of so many processes.
FURTHER = {2: (run_mistakes,), 3: (run_sync, run_norms, run_order), 4: (run_bit_equality,)}


def run_all(which):
    """What ``run_cases`` and the further functions of so many processes return, by name."""
    further = FURTHER.get(world_size(), ()) if which == "quick" else ()
    return {"cases": run_cases(which)} | {run.__name__: run() for run in further}


def main(folder, which):
    """Run everything and write it."""
    results = {"cases": {}}
    for world in sorted({world for world, _ in LAYOUTS[which]}):
        by_rank = run_ranks(run_all, world, folder, which)
        for case, num_parts in by_rank[0]["cases"]:
            found = [of_rank["cases"][case, num_parts] for of_rank in by_rank]
            results["cases"].setdefault(case, {})[world, num_parts] = found
        for name in by_rank[0].keys() - {"cases"}:
            results[name] = [of_rank[name] for of_rank in by_rank]
    torch.save(results, f"{folder}/results.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
