"""The memory of one process, part by part, at the moments of a step when it may be at its most.

A step is forward, loss, backward, optimizer. Activations are all there when the loss is computed, gradients when the
backward pass ends, and what a block needs besides is there while its backward pass runs. With gradient accumulation
every process keeps the whole gradient of its rows, in fp32, and the gathered weights, until the last of its
micro-batches (see `illada.distributed.sharding.accumulate`).

Counted are tensors. The CUDA context and what an allocator holds back come on top.
"""

from dataclasses import dataclass, fields
from typing import Literal

from illada.distributed.activation import ActivationCheckpointing
from illada.losses.cross_entropy import CHUNK_LOGITS
from illada.model.accounting import count_parameters
from illada.model.config import ModelConfig
from illada.planning.activations import AUTOCAST, GATHERED, PLAIN, Numbers, block_activations, outer_activations


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
    def numbers(self) -> Numbers:
        """Bytes per number."""
        if self.precision == "fp32":
            return PLAIN
        return GATHERED if self.gathers else AUTOCAST


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
    block = block_activations(work.model, work.numbers, checkpointing=work.checkpointing, tensor=work.tensor)
    outer = outer_activations(work.model, work.numbers)
    running = block.kept + block.recomputed + block.workspace
    accumulated = 4 * sizes.here if work.micro_steps > 1 else 0
    return {
        "loss": Memory(
            **kept,
            gradients=accumulated,
            working_weights=sizes.gathered_outside if work.gathers else sizes.casts,
            activations=tokens * (layers * block.kept + outer),
            loss=_loss(work),
        ),
        "backward pass of the last block": Memory(
            **kept,
            gradients=accumulated + sizes.block_gradient,
            working_weights=sizes.gathered_outside + sizes.gathered_inside if work.gathers else sizes.casts,
            activations=tokens * ((layers - 1) * block.kept + running + outer),
            loss=sizes.head_gradient,
            communication=sizes.communication,
        ),
        "backward pass of the first block": Memory(
            **kept,
            gradients=max(accumulated, 4 * sizes.sharded if work.gathers else 4 * sizes.here) + sizes.head_gradient,
            working_weights=sizes.gathered_at_the_end,
            activations=tokens * running,
            communication=sizes.communication,
        ),
        "optimizer": Memory(**kept, gradients=4 * sizes.sharded),
    }


class _Sizes:
    """Bytes that follow from the parameters of a model and their division."""

    def __init__(self, work: Work) -> None:
        model, count = work.model, count_parameters(work.model)
        norms = 2 * model.hidden_size
        block = (count.non_embedding - model.hidden_size) // model.layers
        block = (block - norms) // work.tensor + norms
        outside = count.embedding + model.hidden_size
        compute = work.numbers.compute
        self.here = model.layers * block + outside
        """Parameters that this process works with."""
        self.sharded = -(-self.here // work.shard)
        """Parameters that it keeps."""
        casts = work.numbers.weight > compute
        self.casts = compute * model.layers * (block - norms) if casts else 0
        self.gathered_outside = compute * outside
        # the block in use, and the next one on its way
        self.gathered_inside = 2 * compute * block
        self.block_gradient = compute * block if work.gathers else 4 * block
        # one block as it is gathered; the gradients, in fp32, of one block as they leave and of the one before
        self.communication = (compute + 2 * 4) * block if work.gathers else 0
        self.head_gradient = 4 * model.vocab_size * model.hidden_size
        if not work.gathers:
            self.gathered_at_the_end = self.casts // model.layers
        elif work.micro_steps > 1:
            self.gathered_at_the_end = compute * self.here
        else:
            self.gathered_at_the_end = self.gathered_outside + self.gathered_inside


def _loss(work: Work) -> int:
    """The masked positions meet the vocabulary; see `illada.losses.cross_entropy`."""
    vocab, hidden, numbers = work.model.vocab_size, work.model.hidden_size, work.numbers
    # times are spread evenly over neighbouring rows: of m rows at most about (m + 1) / 2 are masked
    masked = (work.micro_batch + 1) * work.length // 2
    rows = min(masked, max(1, work.chunk_logits // vocab))
    # a chunk in fp32 and, where it is computed in bf16, once more; it is there until the next one is
    per_logit = 4 if numbers.compute == 4 else 6
    at_a_time = rows + min(rows, masked - rows)
    states = 2 * numbers.compute * masked * hidden
    head = 4 * vocab * hidden
    if numbers.compute == 2:
        head += 2 * vocab * hidden  # a chunk's gradient of the head, before it is added
        head += 2 * vocab * hidden if numbers.weight == 4 else 0  # and the head itself, cast
    return states + at_a_time * vocab * per_logit + head
