"""What `config.json` says, as transformers wants it held; a class for each published layout of diffusion models."""

from pathlib import Path
from typing import Any, ClassVar

from transformers.configuration_utils import PretrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from illada.checkpoint.huggingface.configuration import Overrides, read_config, write_config
from illada.checkpoint.huggingface.layouts import DREAM, ILLADA, LLADA, Layout
from illada.model.config import ModelConfig


class LayoutConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped to mypy
    """The keys of one layout's `config.json`, as they are there: there are no defaults to guess from."""

    layout: ClassVar[Layout]

    def __init__(self, **values: Any) -> None:
        if values.get("rope_scaling") is None:
            values.pop("rope_scaling", None)  # it says nothing, and transformers 5 warns of the name
        super().__init__(**values)

    @classmethod
    def of(cls, config: ModelConfig) -> "LayoutConfig":
        """The configuration of a model of this shape.

        Raises:
            ValueError: the layout has no words for it.
        """
        values = write_config(config, cls.layout)
        return cls(**{name: value for name, value in values.items() if name != "model_type"})

    def model_config(self) -> ModelConfig:
        """The shape of our Transformer.

        Raises:
            ValueError: a key is missing, or asks for something that is not supported; the message names it.
        """
        return read_config(self.to_dict(), Overrides(), source=Path(self._name_or_path or type(self).__name__))

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: also where the library would leave a key out, whose default need not be the layout's."""
        every = self.to_dict()
        layout = {key: every[key] for key in self.layout.keys.values() if key in every}
        return {**super().to_diff_dict(), **layout}


class IlladaConfig(LayoutConfig):
    """iLLaDA (arXiv 2606.25331)."""

    model_type = ILLADA.model_type
    __init__ = LayoutConfig.__init__  # else transformers 5 makes one
    layout: ClassVar[Layout] = ILLADA


class LladaConfig(LayoutConfig):
    """LLaDA and LLaDA 1.5 (arXiv 2502.09992)."""

    model_type = LLADA.model_type
    __init__ = LayoutConfig.__init__  # else transformers 5 makes one
    layout: ClassVar[Layout] = LLADA
    # what the library itself asks a configuration for
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    }


class DreamConfig(LayoutConfig):
    """Dream (arXiv 2508.15487)."""

    model_type = DREAM.model_type
    __init__ = LayoutConfig.__init__  # else transformers 5 makes one
    layout: ClassVar[Layout] = DREAM


CONFIGS: tuple[type[LayoutConfig], ...] = (IlladaConfig, LladaConfig, DreamConfig)


def register() -> None:
    """Let AutoConfig know them."""
    for config in CONFIGS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
