"""Blocks compiled for generation compute what they compute otherwise."""

import json
import shutil
import subprocess
import sys

import pytest

from illada.model.compiling import compile_for_generation
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer

COMPARE = """
import json
import torch
from torch._dynamo.utils import counters
from illada.model.cache import KeyValueCache, Selection
from illada.model.compiling import compile_for_generation
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

torch.set_num_threads(1)
config = ModelConfig(vocab_size=40, hidden_size=32, layers=7, heads=4, kv_heads=2, ffn_size=48, max_length=64)
model = Transformer(config).eval()
initialize(model, seed=3)

@torch.inference_mode()
def states():
    kept = KeyValueCache.empty(config, slots=2, places=48, dtype=torch.float32, device=torch.device("cpu"))
    found = [model(torch.arange(24).view(2, 12))]
    for counts in ((12, 12), (3, 7), (5, 5), (1, 9)):
        selection = Selection(
            slot=torch.tensor([0] * counts[0] + [1] * counts[1]),
            position=torch.cat([torch.arange(count) for count in counts]),
            slots=[0, 1], counts=counts, lengths=[12, 12], causal=False,
        )
        found.append(model.recompute(torch.arange(sum(counts)) % 40, kept, selection))
    return found

eager = states()
compile_for_generation(model)
compiled = states()
worst = max((one - other).abs().max().item() for one, other in zip(eager, compiled, strict=True))
print(json.dumps([worst, counters["stats"]["unique_graphs"]]))
"""


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_computes_the_same_and_all_blocks_share_their_graphs():
    # in a process of its own: torch.compile cannot trace through the run-time shape checks of this suite
    done = subprocess.run([sys.executable, "-c", COMPARE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    worst, graphs = json.loads(done.stdout.splitlines()[-1])
    assert worst < 1e-5
    # fewer than layers
    assert graphs < 7


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    config = ModelConfig(vocab_size=8, hidden_size=8, layers=1, heads=1, kv_heads=1, ffn_size=8, max_length=8)
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"):
        compile_for_generation(Transformer(config))
