"""Context parallelism: every row divided among processes, each computing a run of its positions.

Only attention needs the others: keys and values of all positions are gathered, a layer at a time (as in Llama 3,
arXiv 2407.21783, section 3.3.2); with grouped queries they are small. So any mask will do, and packed rows with it. The
ring attention of PyTorch (`torch.distributed.tensor.experimental`) takes no mask, and iLLaDA's rows are split.
"""

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from illada.model.attention import Share
from illada.model.transformer import Transformer


def divide_rows(model: Transformer, mesh: DeviceMesh) -> None:
    """Let this process compute its part of every row: the processes of a mesh of one dimension share them.

    Raises:
        ValueError: the model's attention is causal.
    """
    if model.config.attention == "causal":
        raise ValueError("mesh.context divides rows that are seen in both directions, and this model is causal")

    def gather(states: Tensor) -> Tensor:
        dim = states.dim() - 2
        divided = DTensor.from_local(states.contiguous(), mesh, [Shard(dim)], run_check=False)
        # each process uses all of them: the gradients of a position's states are summed where it is computed
        whole: Tensor = divided.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])
        return whole

    model.share = Share(number=mesh.get_local_rank(), count=mesh.size(), gather=gather)
