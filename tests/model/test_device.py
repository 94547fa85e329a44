import pytest
import torch

from illada.model.device import choose_device


def test_the_cpu_can_be_chosen():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch, there, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "toaster:1"])
def test_a_device_that_torch_does_not_know_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"device '{name}' cannot be used: ") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device 'cuda' cannot be used: "):
        choose_device("cuda")
