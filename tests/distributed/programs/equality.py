"""Train the same run on every mesh that is asked for, and write what it came to: losses and weights.

equality.py OUT MESH...   MESH: replicate,shard,context,tensor,rows of a micro-batch,whole|sharded
"""

import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from rich.console import Console

from illada.data.loader import Loader
from illada.data.packing import PackedRows, PackingConfig
from illada.distributed.mesh import Mesh, MeshConfig
from illada.distributed.placement import fill, whole
from illada.distributed.processes import joined
from illada.distributed.sharding import Layout, distribute
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initial_values
from illada.track.console import ProgressBar
from illada.track.throughput import Throughput
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, fit
from illada.train.objective import DiffusionObjective, NoiseConfig
from illada.train.optimizer import AdamWConfig, build_optimizer

MODEL = ModelConfig(vocab_size=60, hidden_size=32, layers=2, heads=4, kv_heads=4, ffn_size=48, max_length=24)
STEPS, ROWS = 20, 16
MASK_ID = 59


class Stream:
    """Random tokens, a document every eleven."""

    def __init__(self):
        self._tokens = torch.randint(0, MASK_ID, (5000,), generator=torch.Generator().manual_seed(1)).numpy()

    def __len__(self):
        return len(self._tokens)

    def read(self, start, length):
        return self._tokens[start : start + length].astype("int64")

    def document_starts(self, start, length):
        return np.flatnonzero(np.arange(start, start + length) % 11 == 0)


class Losses:
    def __init__(self):
        self.seen = []

    def log(self, step, metrics):
        if "train/loss_nats_per_token" in metrics:
            self.seen.append([metrics["train/loss_nats_per_token"], metrics["train/gradient_norm"]])

    def close(self):
        pass


def train(processes, sizes, micro_batch_size, accumulation="whole", *, steps=STEPS):
    device = torch.device("cpu")
    mesh = Mesh(MeshConfig(**sizes), processes=processes, device=device)
    with torch.device("meta"):
        model = Transformer(MODEL)
    loop = LoopConfig(
        steps=steps,
        batch_size=ROWS,
        micro_batch_size=micro_batch_size,
        accumulation=accumulation,
        precision="fp32",
        log_every=1,
    )
    several = loop.micro_batches(mesh.data_size) > 1
    distribute(model, mesh, Layout(keep_gathered=several and accumulation == "whole"))
    fill(model, lambda name, shape: initial_values(MODEL, name, shape, seed=0))
    packing = PackingConfig(length=24, split_probability=0.5, random_length_probability=0.2)
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, AdamWConfig()),
        loader=Loader([(PackedRows(Stream(), packing, seed=0, pad=0), 1.0)], seed=0),
    )
    losses = Losses()
    fit(
        state,
        loop,
        loss=DiffusionObjective(NoiseConfig(), mask_id=MASK_ID, seed=0),
        schedule=WarmupConstantCosine(peak=3e-3, floor=1e-4, warmup_steps=2),
        clip_norm=1.0,
        hooks=Hooks(
            validate=dict,
            save=lambda wait: None,
            sink=losses,
            progress=ProgressBar(Console(quiet=True), title="", total_steps=steps),
            throughput=Throughput(flops_per_token=1.0, device=device),
        ),
        mesh=mesh,
    )
    weights = {name: whole(parameter.detach()).contiguous() for name, parameter in model.named_parameters()}
    return torch.tensor(losses.seen, dtype=torch.float64), weights


def main(out, meshes):
    torch.set_num_threads(1)
    with joined() as processes:
        for text in meshes:
            *numbers, accumulation = text.split(",")
            *sizes, micro = map(int, numbers)
            names = ("replicate", "shard", "context", "tensor")
            losses, weights = train(processes, dict(zip(names, sizes, strict=True)), micro, accumulation)
            if processes.first:
                safetensors.torch.save_file(weights | {"losses": losses}, Path(out) / f"{text}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
