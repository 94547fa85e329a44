"""The state of a run to a checkpoint and back: which tensor goes where, and what must fit.

With a moving average of the weights, the average is the model of the checkpoint and the live weights lie with the
optimizer's tensors.
"""

from pathlib import Path

from torch import Tensor

from illada.checkpoint.adapter import holds_adapter, read_adapter
from illada.checkpoint.native import check_fit, read_state
from illada.checkpoint.pieces import Kind, read_blocks, read_index
from illada.data.tokenizer import Tokenizer
from illada.distributed.placement import block_of, local
from illada.distributed.sharding import release
from illada.train.loop import TrainState
from illada.train.optimizer import begin_moments, optimizer_tensors, trained

_LIVE = "live/"
"""Prefix of the weights that train, beside the optimizer's tensors of a run whose model is the average."""


def tensors_of(state: TrainState) -> dict[Kind, dict[str, Tensor]]:
    """All tensors that a resume needs, by the file they go to; they are those of the run, and change with it."""
    release(state.model)
    begin_moments(state.optimizer)
    live = {name: parameter.detach() for name, parameter in trained(state.model).items()}
    moments = optimizer_tensors(state.model, state.optimizer)
    if state.average is None:
        return {"model": live, "optimizer": moments}
    behind = {f"{_LIVE}{name}": tensor for name, tensor in live.items()}
    return {"model": dict(state.average.tensors), "optimizer": moments | behind}


def restore(state: TrainState, checkpoint: Path, *, tokenizer: Tokenizer, data_identity: list[str]) -> None:
    """Put a run back to where `checkpoint` was saved; each process reads its part.

    The bytes are not checked here: see `illada.checkpoint.native.verify_checkpoint`.

    Raises:
        ValueError: the checkpoint is of another shape, of another tokenizer or data, or holds no training state.
    """
    if Tokenizer.load(checkpoint).fingerprint != tokenizer.fingerprint:
        raise ValueError(f"{checkpoint} was trained with another tokenizer than the corpus has")
    saved = read_state(checkpoint)
    if "step" not in saved:
        raise ValueError(f"{checkpoint} holds weights but no training state: it can be loaded, not resumed")
    if saved["corpus"] != data_identity:
        raise ValueError(f"{checkpoint} was trained on another corpus: the sources have changed since the run began")
    everything = tensors_of(state)
    adapter = read_adapter(checkpoint).tensors if holds_adapter(checkpoint) else {}
    indices = {kind: read_index(checkpoint, kind) for kind in everything}
    for kind, tensors in everything.items():
        there = {name: tuple(tensor.shape) for name, tensor in adapter.items()} if kind == "model" else {}
        check_fit(
            {name: tuple(tensor.shape) for name, tensor in tensors.items()},
            there | {name: stored.shape for name, stored in indices[kind].items()},
            source=str(checkpoint),
            what=f"the {kind}",
        )
    for kind, tensors in everything.items():
        blocks = {name: (local(tensor), block_of(tensor)) for name, tensor in tensors.items() if name in indices[kind]}
        read_blocks(checkpoint, indices[kind], blocks)
    for name, tensor in adapter.items():  # it is small, and trains in one process
        everything["model"][name].copy_(tensor)
    state.load_plain(saved)
