"""Train the same run on every mesh that is asked for, and write what it came to: losses and weights.

equality.py OUT MESH...   MESH: replicate,shard,context,tensor,rows of a micro-batch,whole|sharded[,answers|shifted]
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from rich.console import Console

from illada.data.loader import Loader
from illada.data.packing import PackedRows, PackingConfig, Part, Row
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


class Answers:
    """Prompts and answers of all lengths; ends of text fill a row up to the longest of its batch, and are learnt."""

    rows, length = 60, 24

    def read(self, row, *, example, epoch):
        generator = np.random.default_rng([row, epoch])
        prompt, answer = generator.integers(2, 7), generator.integers(1, 9)
        parts = np.full(self.length, Part.STRETCH)
        parts[:prompt], parts[prompt : prompt + answer], parts[prompt + answer] = Part.PROMPT, Part.RESPONSE, Part.END
        tokens = np.where(parts <= Part.RESPONSE, generator.integers(0, MASK_ID - 1, self.length), MASK_ID - 1)
        return Row(tokens, np.zeros(self.length, dtype=np.int64), parts)


SOURCES = {
    "text": lambda: PackedRows(Stream(), PACKING, seed=0, pad=0),
    "shifted": lambda: PackedRows(Stream(), PACKING, seed=0, pad=0),
    "answers": Answers,
}
NOISE = {
    "text": NoiseConfig(),
    "shifted": NoiseConfig(),
    "answers": NoiseConfig(maskable="response", always_mask_end=True, normaliser="masked"),
}
PACKING = PackingConfig(length=24, split_probability=0.5, random_length_probability=0.2)


class Losses:
    def __init__(self):
        self.seen = []

    def log(self, step, metrics):
        if "train/loss_nats_per_token" in metrics:
            self.seen.append([metrics["train/loss_nats_per_token"], metrics["train/gradient_norm"]])

    def close(self):
        pass


def train(processes, sizes, micro_batch_size, accumulation="whole", kind="text", *, steps=STEPS):
    device = torch.device("cpu")
    mesh = Mesh(MeshConfig(**sizes), processes=processes, device=device)
    config = replace(MODEL, shifted=kind == "shifted")
    with torch.device("meta"):
        model = Transformer(config)
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
    fill(model, lambda name, shape: initial_values(config, name, shape, seed=0))
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, AdamWConfig()),
        loader=Loader([(SOURCES[kind](), 1.0)], seed=0),
    )
    losses, objective = Losses(), DiffusionObjective(NOISE[kind], mask_id=MASK_ID, seed=0)
    fit(
        state,
        loop,
        loss=objective,
        normaliser=objective.normaliser,
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
            replicate, shard, context, tensor, micro, *words = text.split(",")
            sizes = {"replicate": replicate, "shard": shard, "context": context, "tensor": tensor}
            mesh = {name: int(size) for name, size in sizes.items()}
            losses, weights = train(processes, mesh, int(micro), *words)
            if processes.first:
                safetensors.torch.save_file(weights | {"losses": losses}, Path(out) / f"{text}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
