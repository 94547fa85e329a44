"""`illada describe SIZE`: what a model costs, without building it."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from illada.cli.flags import parse
from illada.config import to_dict
from illada.model.accounting import count_flops, count_parameters, estimate_memory
from illada.model.config import ModelConfig, named_size


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Parameters, memory and FLOPs of a named model size."""

    size: Annotated[str, tyro.conf.Positional]
    """tiny, small, base, 1b, illada_8b or llada_8b."""
    length: int | None = None
    """Tokens in a row; by default the model's longest."""
    json: bool = False
    """Print JSON."""


def command(arguments: list[str]) -> int:
    """Count and print."""
    chosen = parse(Arguments, arguments, command="describe")
    config = named_size(chosen.size)
    length = config.max_length if chosen.length is None else chosen.length
    if not 1 <= length <= config.max_length:
        raise ValueError(f"length must be between 1 and the model's context of {config.max_length}, got {length}")
    facts = describe(chosen.size, config, length=length)
    if chosen.json:
        print(json.dumps(facts, indent=2))  # noqa: T201  # for programs: no wrapping, no colours
    else:
        _print_tables(facts)
    return 0


def describe(name: str, config: ModelConfig, *, length: int) -> dict[str, Any]:
    """All numbers as plain data; bytes and FLOPs."""
    parameters = count_parameters(config)
    # training meets the vocabulary at the masked half of the positions, a forward in use at all that are asked for
    forward = count_flops(config, length=length)
    training = count_flops(config, length=length, head_fraction=0.5)
    mixed = estimate_memory(config, length=length, weight_bytes=4, compute_bytes=2)
    return {
        "name": name,
        "config": to_dict(config),
        "parameters": {
            "total": parameters.total,
            "without_embeddings": parameters.non_embedding,
        },
        "flops_per_token": {"length": length, "forward": forward.forward, "training": training.training},
        "memory_bytes": {
            "weights_bf16": 2 * parameters.total,
            "weights_fp32": mixed.weights,
            "gradients_fp32": mixed.gradients,
            "adamw_moments_fp32": mixed.optimizer,
            "weight_copies_bf16": mixed.casts,
            "activations_one_row": mixed.activations,
            "training_one_row": mixed.training,
        },
    }


def _print_tables(facts: dict[str, Any]) -> None:
    console = Console()
    parameters, flops, memory = facts["parameters"], facts["flops_per_token"], facts["memory_bytes"]
    shape = Table(title=f"{facts['name']}", title_justify="left", show_header=False, box=None, pad_edge=False)
    for key, value in facts["config"].items():
        shape.add_row(key, f"{value:,}" if type(value) is int else str(value))
    costs = Table(title="costs", title_justify="left", show_header=False, box=None, pad_edge=False)
    costs.add_row("parameters", f"{parameters['total']:,}")
    costs.add_row("  without embeddings", f"{parameters['without_embeddings']:,}")
    costs.add_row(f"FLOPs per token, rows of {flops['length']:,}", "")
    costs.add_row("  forward, head at every position", f"{flops['forward']:.3g}")
    costs.add_row("  training, head at the masked half", f"{flops['training']:.3g}")
    costs.add_row("memory", "")
    for key, label in (
        ("weights_bf16", "weights in bf16, to use the model"),
        ("weights_fp32", "weights in fp32, to train it"),
        ("gradients_fp32", "gradients in fp32"),
        ("adamw_moments_fp32", "AdamW moments in fp32"),
        ("weight_copies_bf16", "weight copies in bf16"),
        ("activations_one_row", "activations of one row, bf16 autocast"),
        ("training_one_row", "training, one row, one device"),
    ):
        costs.add_row(f"  {label}", _gibibytes(memory[key]))
    console.print(shape, "", costs, sep="\n")


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB"
