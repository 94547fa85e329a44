"""Registers our classes with transformers when that is imported, whichever of the two is imported first.

`import illada` must cost nothing, so transformers is not imported here. A finder at the head of `sys.meta_path` waits
for the two modules that hold the registers, lets the other finders find them, and calls us once they have run.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REGISTERS = {
    "transformers.models.auto.configuration_auto": "illada.transformers.configuration",
    "transformers.models.auto.modeling_auto": "illada.transformers.modeling",
}
"""The module that holds a register, and the one of ours whose `register` enters what belongs there."""


def register_when_imported() -> None:
    """Register now what transformers has imported already, and the rest when it does."""
    waiting = {name: ours for name, ours in _REGISTERS.items() if name not in sys.modules}
    if waiting and not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())
    for name, ours in _REGISTERS.items():
        if name not in waiting:
            _register(ours)


def _register(ours: str) -> None:
    try:
        import_module(ours).register()
    except Exception:  # a transformers that we do not know must stay usable without us
        import logging  # `import illada` does without it

        logging.getLogger(__name__).warning(
            "the models of illada could not be registered with transformers", exc_info=True
        )


class _Waiting:
    """A finder that finds nothing by itself."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders find; the two modules come with a loader that calls us afterwards."""
        if name not in _REGISTERS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for other in others if (found := other.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenCall(spec.loader, lambda: _register(_REGISTERS[name]))  # type: ignore[assignment]
        return spec


class _ThenCall:
    """A loader that calls a function when the module has run, and leaves no trace."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self._loader, self._then = loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then call."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then()
