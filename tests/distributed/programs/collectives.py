"""Count what two processes send in two steps, of one micro-batch and of several.

collectives.py OUT
"""

import json
import sys
from collections import Counter
from pathlib import Path

import torch
from equality import train
from torch.utils._python_dispatch import TorchDispatchMode

from illada.distributed.processes import joined

RUNS = {"one": (8, "whole"), "four whole": (2, "whole"), "four sharded": (2, "sharded")}


class Count(TorchDispatchMode):
    """How often each operation ran."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.seen[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def counted(processes, micro_batch_size, accumulation):
    with Count() as count:
        train(processes, {}, micro_batch_size, accumulation, steps=2)
    return {"gathered": count.seen["_allgather_base_"], "summed": count.seen["_reduce_scatter_base_"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as group:
        sent = {name: counted(group, *run) for name, run in RUNS.items()}
        if group.first:
            (Path(sys.argv[1]) / "sent.json").write_text(json.dumps(sent))
