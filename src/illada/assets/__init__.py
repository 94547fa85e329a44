"""The models that come with the package: what `illada` uses when told nothing.

`README.md` beside this file is their model card: data and licences, the commands that trained them, and results.
"""

import json
from pathlib import Path
from typing import Any

BASE = "tiny"
"""Pre-trained: continues a text."""
INSTRUCT = "tiny-instruct"
"""Fine-tuned: answers."""

_FOLDER = Path(__file__).parent


def embedded_models() -> list[str]:
    """The names of the models that are here."""
    return [name for name in (BASE, INSTRUCT) if (_FOLDER / name / "manifest.json").exists()]


def embedded_model(name: str) -> Path | None:
    """The checkpoint folder of an embedded model; None if there is none of that name."""
    return _FOLDER / name if name in embedded_models() else None


def fast_settings(name: str) -> dict[str, Any]:
    """The cheapest settings of sampling that lose nothing on an embedded model: fields of `SamplingParams` by name.

    `illada bench generate` found them; the model card says when and on what.

    Raises:
        ValueError: none are recorded for this model.
    """
    recorded: dict[str, dict[str, Any]] = json.loads((_FOLDER / "fast.json").read_text(encoding="utf-8"))
    if name not in recorded:
        raise ValueError(
            f"no fast settings are recorded for {name}, only for {', '.join(recorded)}: find some with illada bench "
            f"generate --model {name}, and name them with --caching and --unmasking"
        )
    return recorded[name]
