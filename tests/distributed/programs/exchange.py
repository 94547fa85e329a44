"""What processes tell one another, and where the blocks of a divided model lie; each writes what it saw.

exchange.py OUT
"""

import json
import sys
import time
from pathlib import Path

import torch
from equality import MODEL

from illada.checkpoint.saver import Saver
from illada.distributed.mesh import Mesh, MeshConfig
from illada.distributed.placement import block_of, fill, local, whole
from illada.distributed.processes import PeerError, joined
from illada.distributed.sharding import Layout, distribute
from illada.model.transformer import Transformer


def talk(processes, out):
    rank = processes.rank
    seen = {
        "total": processes.total(1.0, float(rank)),
        "anywhere": processes.anywhere(False, rank == 1, True),
        "gather": processes.gather([float(rank), 0.5]),
        "first": processes.told_by_first({"from": rank, "text": "ü" * 300}),
        "all": processes.told_by_all([rank] * rank),
    }
    marks = out / "marks"

    def work():
        if rank == 0:
            time.sleep(0.3)
            marks.mkdir()
        return sorted(path.name for path in out.glob("marks"))

    seen["in_turn"] = processes.in_turn(work)

    seen["by_first"] = processes.by_first(lambda: {"by": rank})
    seen["failed"] = {how: failure(getattr(processes, how), rank) for how in ("in_turn", "by_first")}
    return seen


def failure(how, rank):
    """What each process is told where the work fails on the first."""

    def fail():
        if rank == 0:
            raise ValueError("the first cannot")
        return "done"

    try:
        how(fail)
    except (ValueError, PeerError) as error:
        return f"{type(error).__name__}: {error}"


def left_open(out):
    """How many more connections there are after three savers that were closed again."""

    def count():
        return sum(1 for _ in Path("/dev/fd").iterdir())

    Saver(out / "checkpoints", keep_last=1).close()
    before = count()
    for _ in range(3):
        Saver(out / "checkpoints", keep_last=1).close()
    return count() - before


def blocks(processes):
    """Where the blocks of a model lie that is divided over matrices and shards: every number is its own address."""
    mesh = Mesh(MeshConfig(tensor=2), processes=processes, device=torch.device("cpu"))
    with torch.device("meta"):
        model = Transformer(MODEL)
    distribute(model, mesh, Layout())
    fill(model, lambda name, shape: torch.arange(shape.numel(), dtype=torch.float32).view(shape))
    for parameter in model.parameters():
        expected = torch.arange(parameter.numel(), dtype=torch.float32).view(parameter.shape)
        assert torch.equal(local(parameter), expected[block_of(parameter)])
        assert torch.equal(whole(parameter), expected)
    return sum(local(parameter).numel() for parameter in model.parameters())


def main(out):
    torch.set_num_threads(1)
    with joined() as processes:
        seen = talk(processes, Path(out))
        seen["numbers"] = blocks(processes)
        seen["left_open"] = left_open(Path(out))
        (Path(out) / f"{processes.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
