import pytest
import torch

from illada.distributed.mesh import Mesh, MeshConfig, alone
from illada.distributed.processes import Processes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "processes", "expected"),
    [
        ({}, 1, (1, 1, 1, 1)),
        ({}, 8, (1, 8, 1, 1)),
        ({"shard": 8}, 8, (1, 8, 1, 1)),
        ({"replicate": 2}, 8, (2, 4, 1, 1)),
        ({"replicate": 4, "tensor": 2}, 8, (4, 1, 1, 2)),
        ({"shard": 8, "replicate": 16, "context": 2, "tensor": 2}, 512, (16, 8, 2, 2)),
    ],
)
def test_what_the_others_leave_is_sharded(config, processes, expected):
    sizes = MeshConfig(**config).sizes(processes)
    assert tuple(sizes.values()) == expected
    assert list(sizes) == ["replicate", "shard", "context", "tensor"]


@pytest.mark.parametrize(
    ("config", "processes", "message"),
    [
        ({"shard": 8}, 4, "1 replicate x 8 shard x 1 context x 1 tensor has 8 places, but there are 4 processes"),
        ({"tensor": 3}, 8, "1 replicate x 2 shard x 1 context x 3 tensor has 6 places, but there are 8 processes"),
        ({"replicate": 2}, 1, "2 replicate x 1 shard x 1 context x 1 tensor has 2 places, but there are 1 processes"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_with_both_numbers(config, processes, message):
    with pytest.raises(ValueError, match=message):
        MeshConfig(**config).sizes(processes)


@pytest.mark.parametrize("name", ["shard", "replicate", "context", "tensor"])
def test_a_dimension_without_processes_is_refused(name):
    with pytest.raises(ValueError, match=rf"mesh\.{name} must be at least 1, got 0"):
        MeshConfig(**{name: 0})


def test_one_process_has_everything_and_no_groups():
    mesh = alone(CPU)
    assert mesh.alone
    assert mesh.counts
    assert (mesh.data_rank, mesh.data_size, mesh.tensor_rank, mesh.context_rank) == (0, 1, 0, 0)
    assert (mesh.parameters, mesh.tensor, mesh.context) == (None, None, None)
    assert mesh.total_of_rows(1.5, 2.0) == [1.5, 2.0]
    assert mesh.total_of_positions(3.0) == [3.0]


def test_places_follow_one_another_with_tensor_innermost(monkeypatch):
    """Of 2 x 2 x 2 x 2 processes: who reads which rows, who counts them."""

    class Layout:
        def __getitem__(self, names):
            return names

    monkeypatch.setattr("illada.distributed.mesh.init_device_mesh", lambda *args, **options: Layout())
    config = MeshConfig(replicate=2, shard=2, context=2, tensor=2)
    meshes = [Mesh(config, processes=Processes(rank=rank, size=16), device=CPU) for rank in range(16)]
    assert [mesh.data_rank for mesh in meshes] == [rank // 4 for rank in range(16)]
    assert [mesh.context_rank for mesh in meshes] == [rank // 2 % 2 for rank in range(16)]
    assert [mesh.tensor_rank for mesh in meshes] == [rank % 2 for rank in range(16)]
    assert [rank for rank, mesh in enumerate(meshes) if mesh.counts] == [0, 4, 8, 12]
    assert all(mesh.data_size == 4 for mesh in meshes)
