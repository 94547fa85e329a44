"""Run-time shape checks for the whole suite: every annotated call in illada is checked against its jaxtyping names."""

import torch
from jaxtyping import install_import_hook

install_import_hook("illada", "beartype.beartype")

# Small models gain nothing from more threads, and two that wait for each other on a busy machine lose tenfold.
torch.set_num_threads(1)
