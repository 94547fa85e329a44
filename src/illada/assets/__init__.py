"""The models that come with the package: what `illada` uses when told nothing.

`README.md` beside this file is their model card: data and licences, the commands that trained them, and results.
"""

from pathlib import Path

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
