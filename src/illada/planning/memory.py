"""The memory of one process, part by part, at the moments of a step when it may be at its most.

A step is forward, loss, backward, optimizer. Activations are all there when the loss is computed, gradients when the
backward pass ends, and what a block needs besides is there while its backward pass runs. Where a step has several
forwards and `accumulation` is `whole`, every process keeps the gathered weights and the gradient of its own rows, in
fp32, from the first to the last (see `illada.distributed.sharding`).

Counted are tensors. The CUDA context and what an allocator holds back come on top.
"""

from dataclasses import dataclass, fields
from typing import Literal

from illada.distributed.activation import ActivationCheckpointing
from illada.distributed.sharding import Accumulation
from illada.losses.cross_entropy import CHUNK_LOGITS
from illada.model.accounting import count_parameters
from illada.model.config import ModelConfig
from illada.planning.activations import block_activations, outer_activations


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one process of a run does in a step."""

    model: ModelConfig
    length: int
    """Tokens of a row."""
    micro_batch: int = 1
    """Rows of one forward."""
    micro_steps: int = 1
    """Forwards of one step."""
    accumulation: Accumulation = "whole"
    """What is kept between them."""
    shard: int = 1
    replicate: int = 1
    tensor: int = 1
    checkpointing: ActivationCheckpointing = "none"
    precision: Literal["fp32", "bf16"] = "bf16"
    average: bool = False
    """Whether a moving average of the weights is kept."""
    chunk_logits: int = CHUNK_LOGITS

    @property
    def gathers(self) -> bool:
        """Whether the weights are kept by FSDP and gathered for use, block by block."""
        return self.shard * self.replicate > 1

    @property
    def keeps_whole(self) -> bool:
        """Whether the gathered weights and a whole gradient stay from one forward to the next."""
        return self.gathers and self.micro_steps > 1 and self.accumulation == "whole"

    @property
    def compute(self) -> int:
        """Bytes per number that matrix products compute with."""
        return 2 if self.precision == "bf16" else 4


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process at one moment."""

    master_weights: int = 0
    """In fp32, the part of this process."""
    gradients: int = 0
    moments: int = 0
    """AdamW's two, in fp32."""
    average: int = 0
    working_weights: int = 0
    """In the dtype that is computed in: gathered by FSDP, or cast."""
    activations: int = 0
    loss: int = 0
    """States at masked positions, a chunk of logits, and the gradients of both and of the LM head."""
    communication: int = 0
    """Buffers to gather weights and to sum gradients."""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Bytes by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def peak_memory(work: Work) -> Memory:
    """The moment at which `work` takes most."""
    return max(moments(work).values(), key=lambda memory: memory.total)


def moments(work: Work) -> dict[str, Memory]:
    """Memory where it may be at its most, by the name of the moment."""
    sizes = _Sizes(work)
    kept = {"master_weights": 4 * sizes.sharded, "moments": 8 * sizes.sharded}
    kept["average"] = 4 * sizes.sharded if work.average else 0
    tokens, layers = work.micro_batch * work.length, work.model.layers
    block = block_activations(work.model, compute=work.compute, checkpointing=work.checkpointing, tensor=work.tensor)
    running = block.kept + block.recomputed + block.workspace
    return {
        "loss": Memory(
            **kept,
            gradients=sizes.accumulated,
            working_weights=sizes.working_outside,
            activations=tokens * (layers * block.kept + outer_activations(work.model)),
            loss=_loss(work),
        ),
        "backward pass of the last block": Memory(
            **kept,
            gradients=sizes.accumulated + sizes.block_gradient,
            working_weights=sizes.working,
            activations=tokens * ((layers - 1) * block.kept + running),
            loss=sizes.head_gradient,
            communication=sizes.communication,
        ),
        "backward pass of the first block": Memory(
            **kept,
            gradients=max(sizes.accumulated, 4 * sizes.sharded) + sizes.block_gradient + sizes.head_gradient,
            working_weights=sizes.working,
            activations=tokens * running,
            communication=sizes.communication,
        ),
        "optimizer": Memory(**kept, gradients=4 * sizes.sharded),
    }


class _Sizes:
    """Bytes that follow from the parameters of a model and their division."""

    def __init__(self, work: Work) -> None:
        model, count, compute = work.model, count_parameters(work.model), work.compute
        norms = 2 * model.hidden_size
        block = (count.non_embedding - model.hidden_size) // model.layers
        block = (block - norms) // work.tensor + norms
        outside = count.embedding + model.hidden_size
        here = model.layers * block + outside
        self.sharded = -(-here // work.shard)
        """Parameters that this process keeps; those that it works with are `here`."""
        self.accumulated = 0
        if work.micro_steps > 1:
            self.accumulated = 4 * (here if work.keeps_whole else self.sharded)
        self.head_gradient = 4 * model.vocab_size * model.hidden_size
        if not work.gathers:
            # autocast keeps a copy of every matrix of the blocks from the forward to its backward pass
            self.working = self.working_outside = compute * model.layers * (block - norms) if compute < 4 else 0
            self.block_gradient = self.communication = 0
            return
        # outside the blocks all is gathered as long as it is in use; of the blocks one, and the next on its way
        self.working_outside = compute * (here if work.keeps_whole else outside)
        self.working = self.working_outside if work.keeps_whole else compute * (outside + 2 * block)
        self.block_gradient = compute * block
        # one block as it is gathered; the gradients, in fp32, of one block as they leave and of the one before
        self.communication = (compute + 2 * 4) * block


def _loss(work: Work) -> int:
    """The masked positions meet the vocabulary; see `illada.losses.cross_entropy`."""
    vocab, hidden, compute = work.model.vocab_size, work.model.hidden_size, work.compute
    # times are spread evenly over neighbouring rows: of m rows at most about (m + 1) / 2 are masked
    masked = (work.micro_batch + 1) * work.length // 2
    rows = min(masked, max(1, work.chunk_logits // vocab))
    # a chunk in fp32 and, where it is computed in bf16, once more; it is there until the next one is
    per_row = vocab * (4 if compute == 4 else 6)
    next_chunk = per_row * min(rows, masked - rows)
    head = vocab * hidden
    states, head_gradient = 2 * compute * masked * hidden, 4 * head
    if compute == 4:
        return states + head_gradient + per_row * rows + next_chunk
    cast = 0 if work.gathers else compute * head
    # or what the chunk adds to the head's gradient, in bf16 at first
    return states + head_gradient + cast + per_row * rows + max(next_chunk, compute * head)
