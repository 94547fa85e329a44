"""illada: masked diffusion language models, trained, sampled, scored and studied in one package.

The names below are imported when they are first used, so that `import illada` itself costs nothing. It also has our
models known to transformers when that is imported, whichever comes first.
"""

import importlib
from typing import TYPE_CHECKING, Any

from illada._version import __version__
from illada.transformers.hook import register_when_imported

if TYPE_CHECKING:
    from illada.checkpoint.export import ExportConfig, export
    from illada.checkpoint.huggingface.configuration import Overrides
    from illada.model.config import ModelConfig, named_size
    from illada.model.transformer import Transformer
    from illada.pipeline import LanguageModel, load
    from illada.sample.request import Completion, SamplingParams

_HOME = {
    "Completion": "illada.sample.request",
    "ExportConfig": "illada.checkpoint.export",
    "LanguageModel": "illada.pipeline",
    "ModelConfig": "illada.model.config",
    "Overrides": "illada.checkpoint.huggingface.configuration",
    "SamplingParams": "illada.sample.request",
    "Transformer": "illada.model.transformer",
    "export": "illada.checkpoint.export",
    "load": "illada.pipeline",
    "named_size": "illada.model.config",
}

__all__ = [
    "Completion",
    "ExportConfig",
    "LanguageModel",
    "ModelConfig",
    "Overrides",
    "SamplingParams",
    "Transformer",
    "__version__",
    "export",
    "load",
    "named_size",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'illada' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


register_when_imported()
