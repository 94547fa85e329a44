"""Save a state on one mesh, or restore it on another; either way write every whole tensor, to be compared.

resharding.py save|load CHECKPOINTS OUT MESH   MESH: replicate,shard,context,tensor
"""

import sys
from pathlib import Path

import safetensors.torch
import torch

from illada.checkpoint.native import Particulars, list_checkpoints, verify_checkpoint
from illada.checkpoint.saver import Saver
from illada.data.loader import Loader
from illada.data.packing import FixedRows
from illada.data.tokenizer import Tokenizer
from illada.distributed.mesh import Mesh, MeshConfig
from illada.distributed.placement import fill, local, whole
from illada.distributed.processes import joined
from illada.distributed.sharding import Layout, distribute
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.train.loop import TrainState
from illada.train.optimizer import AdamWConfig, WeightAverage, build_optimizer
from illada.train.saving import restore, tensors_of

# sizes that two, three and four processes divide unevenly, and some that leave a process without a part
MODEL = ModelConfig(vocab_size=265, hidden_size=40, layers=2, heads=4, kv_heads=2, ffn_size=22, max_length=16)


def state_on(mesh, *, seed):
    """A state full of random numbers: weights, moments and average, the same on every mesh."""
    with torch.device("meta"):
        model = Transformer(MODEL)
    distribute(model, mesh, Layout())
    generator = torch.Generator()

    def numbers(name, shape):
        generator.manual_seed(seed + sum(map(ord, name)))
        return torch.randn(shape, generator=generator)

    fill(model, numbers)
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, AdamWConfig()),
        loader=Loader([(FixedRows(torch.ones(3, 8, dtype=torch.int64)), 1.0)], seed=0),
        average=WeightAverage(model, decay=0.9),
    )
    for kind, tensors in tensors_of(state).items():
        for name, tensor in tensors.items():
            if not name.startswith("live/"):
                local(tensor).add_(seed + len(kind + name))
    return state


def main(mode, root, out, text):
    torch.set_num_threads(1)
    tokenizer = Tokenizer.train(["a text to learn merges from, a text"] * 3, 265)
    with joined() as processes:
        sizes = dict(zip(("replicate", "shard", "context", "tensor"), map(int, text.split(",")), strict=True))
        mesh = Mesh(MeshConfig(**sizes), processes=processes, device=torch.device("cpu"))
        state = state_on(mesh, seed=1 if mode == "save" else 2)
        if mode == "save":
            state.step, state.tokens = 7, 700
            state.loader.skip(21)
            saver = Saver(Path(root), keep_last=2)
            plain = state.plain() | {"corpus": ["this"]}
            saver.save(7, tensors_of(state), Particulars(model_config=MODEL, tokenizer=tokenizer, state=plain))
            for parameter in state.model.parameters():  # the training goes on at once, and must not be seen
                local(parameter).data.zero_()
            state = state_on(mesh, seed=1)
            saver.wait()
            saver.close()
        else:
            ((_, folder),) = list_checkpoints(Path(root))
            verify_checkpoint(folder)
            restore(state, folder, tokenizer=tokenizer, data_identity=["this"])
            assert (state.step, state.tokens, state.loader.example) == (7, 700, 21)
        tensors = {
            f"{kind}/{name}": whole(tensor)
            for kind, named in tensors_of(state).items()
            for name, tensor in named.items()
        }
        if processes.first:
            safetensors.torch.save_file({name: tensor.clone() for name, tensor in tensors.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
