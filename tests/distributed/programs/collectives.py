"""Count what four processes send in a training, one micro-batch a step and several.

collectives.py OUT
"""

import json
import sys
from pathlib import Path

import torch
from equality import train
from torch.distributed.tensor.debug import CommDebugMode

from illada.distributed.processes import joined

RUNS = {"one": (4, "whole"), "four whole": (1, "whole"), "four sharded": (1, "sharded")}


def counted(processes, micro_batch_size, accumulation):
    with CommDebugMode() as seen:
        train(processes, {}, micro_batch_size, accumulation)
    by_name = {str(operation): count for operation, count in seen.get_comm_counts().items()}
    print(by_name)
    return {
        "gathered": sum(count for name, count in by_name.items() if "allgather_base" in name or "all_gather" in name),
        "summed": sum(count for name, count in by_name.items() if "reduce_scatter" in name),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as group:
        sent = {name: counted(group, *run) for name, run in RUNS.items()}
        if group.first:
            (Path(sys.argv[1]) / "sent.json").write_text(json.dumps(sent))
