"""How long a checkpoint holds the training up, and how long it takes to write.

    python benchmarks/checkpoints.py                2 processes, 100M numbers each kind of tensor, about two minutes
    python benchmarks/checkpoints.py --out benchmarks/results/checkpoints_cpu2_202611.json

The state of a run of so many parameters (weights and the two moments of AdamW, in fp32) is saved again and again, as a
run saves it: the tensors are copied, and written, hashed and flushed by a thread. "blocked" is how long the call takes,
which is what the training waits for; "write" is how long until the checkpoint is complete. Nothing else is done
meanwhile, so the thread has a core to itself, as it would where GPUs do the work. The first copy, into memory that
is new, is made before the training begins and is not counted.
"""

import multiprocessing
import os
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish, spread
from illada.checkpoint.native import Particulars
from illada.checkpoint.saver import Saver
from illada.data.tokenizer import Tokenizer
from illada.distributed.mesh import Mesh, MeshConfig
from illada.distributed.processes import joined
from illada.distributed.sharding import Layout, distribute
from illada.model.accounting import count_parameters
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.train.loop import TrainState
from illada.train.optimizer import AdamWConfig, build_optimizer
from illada.train.saving import tensors_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How large, how often."""

    processes: tuple[int, ...] = (1, 2)
    layers: int = 12
    hidden_size: int = 768
    repeats: int = 7
    out: Path | None = None
    """Write the result to this file, too."""

    def model(self) -> ModelConfig:
        """About 100M parameters by default."""
        return ModelConfig(
            vocab_size=16_384,
            hidden_size=self.hidden_size,
            layers=self.layers,
            heads=12,
            kv_heads=4,
            ffn_size=3 * self.hidden_size,
        )


def measure(settings: Settings) -> list[dict[str, float]]:
    """Seconds of every save, on this process of the job."""
    torch.set_num_threads(1)
    tokenizer = Tokenizer.train(["a text to learn merges from, a text"] * 3, 265)
    with joined() as processes:
        mesh = Mesh(MeshConfig(), processes=processes, device=torch.device("cpu"))
        with torch.device("meta"):
            model = Transformer(settings.model())
        distribute(model, mesh, Layout())
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        state = TrainState(model=model, optimizer=build_optimizer(model, AdamWConfig()), loader=None)  # type: ignore[arg-type]
        folder = processes.told_by_first(tempfile.mkdtemp() if processes.first else "")
        saver = Saver(Path(folder), keep_last=1)
        saver.prepare(tensors_of(state))
        particulars = Particulars(model_config=settings.model(), tokenizer=tokenizer, state={})
        timings = []
        for step in range(1, settings.repeats + 1):
            saver.save(step, tensors_of(state), particulars)
            saver.wait()
            timings.append(saver.timings())
        saver.close()
        processes.total(0.0)  # all are done with the folder
        if processes.first:
            shutil.rmtree(folder)
    return timings


def _work(settings: Settings, rank: int, size: int, port: int, results: Any) -> None:
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()} | {"MASTER_ADDR": "127.0.0.1"})
    timings = measure(settings)
    if rank == 0:
        results.put(timings)


def measure_job(settings: Settings, size: int) -> dict[str, Any]:
    """The record of one number of processes."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = context.Queue()
    job = [context.Process(target=_work, args=(settings, rank, size, port, results)) for rank in range(size)]
    for process in job:
        process.start()
    timings = results.get()
    for process in job:
        process.join()
    blocked = [timing["checkpoint/blocked_seconds"] for timing in timings]
    write = [timing["checkpoint/write_seconds"] for timing in timings]
    numbers = 3 * count_parameters(settings.model()).total
    return {
        "processes": size,
        "bytes": 4 * numbers,
        "blocked_seconds": spread(blocked),
        "write_seconds": spread(write),
        "blocked_part": spread([b / w for b, w in zip(blocked, write, strict=True)]),
    }


def main(settings: Settings) -> None:
    """Measure, show, keep."""
    result = describe_run("checkpoints", torch.device("cpu"), asdict(settings))
    result["records"] = [measure_job(settings, size) for size in settings.processes]
    table = Table("processes", "GB", "blocked s", "write s", "blocked part [quartiles]")
    for record in result["records"]:
        part = record["blocked_part"]
        table.add_row(
            str(record["processes"]),
            f"{record['bytes'] / 1e9:.2f}",
            f"{record['blocked_seconds']['median']:.3f}",
            f"{record['write_seconds']['median']:.2f}",
            f"{part['median']:.3f} [{part['q1']:.3f}, {part['q3']:.3f}]",
        )
    print_card("A checkpoint, written beside the training", table, "blocked: what the training waits for")
    publish(result, settings.out)


if __name__ == "__main__":
    main(tyro.cli(Settings))
