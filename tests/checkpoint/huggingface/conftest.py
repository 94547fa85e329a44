"""Published folders to change: copies of the golden ones."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "golden" / "data"


@dataclass(frozen=True)
class Published:
    """A folder whose files can be changed."""

    path: Path

    def json(self, name: str = "config.json", **changes: object) -> dict:
        """Set keys of a JSON file; returns what it holds."""
        values = json.loads((self.path / name).read_text()) | changes
        (self.path / name).write_text(json.dumps(values))
        return values

    def without(self, *keys: str, name: str = "config.json") -> None:
        values = {key: value for key, value in self.json(name).items() if key not in keys}
        (self.path / name).write_text(json.dumps(values))

    def tensors(self) -> dict[str, Tensor]:
        return safetensors.torch.load_file(self.path / "model.safetensors")

    def write(self, tensors: dict[str, Tensor]) -> None:
        safetensors.torch.save_file(tensors, self.path / "model.safetensors", metadata={"format": "pt"})

    def shard(self, *, into: int, dtype: torch.dtype = torch.float32) -> None:
        """Cut the file of weights into several with an index."""
        tensors = {name: tensor.to(dtype) for name, tensor in self.tensors().items()}
        names, place = list(tensors), {}
        for number in range(into):
            file = f"model-{number + 1:05}-of-{into:05}.safetensors"
            part = {name: tensors[name] for name in names[number::into]}
            safetensors.torch.save_file(part, self.path / file, metadata={"format": "pt"})
            place |= dict.fromkeys(part, file)
        (self.path / "model.safetensors").unlink()
        index = {"metadata": {"total_size": 0}, "weight_map": place}
        (self.path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def published(tmp_path) -> Callable[[str], Published]:
    def copy(name: str = "illada") -> Published:
        shutil.copytree(GOLDEN / name, tmp_path / name)
        return Published(tmp_path / name)

    return copy


@pytest.fixture
def expected_logits() -> Callable[[str], tuple[Tensor, Tensor]]:
    """(input ids, logits) of the golden row of 64 tokens."""

    def read(name: str) -> tuple[Tensor, Tensor]:
        data = safetensors.torch.load_file(GOLDEN / "expected" / f"{name}_logits.safetensors")
        return data["len64.input_ids"], data["len64.logits"]

    return read
