import pytest

from illada.planning.hardware import GPUS, USABLE, named_gpu
from illada.track.throughput import PEAK_BF16_FLOPS


@pytest.mark.parametrize(("name", "gigabytes", "teraflops"), [("a100", 80, 312), ("h100", 80, 989), ("h200", 141, 989)])
def test_the_figures_are_those_of_the_data_sheets(name, gigabytes, teraflops):
    gpu = named_gpu(name)
    assert (gpu.memory, gpu.peak_flops) == (gigabytes * 1e9, teraflops * 1e12)
    assert gpu.usable == pytest.approx(USABLE * gigabytes * 1e9)


def test_a_run_reports_its_mfu_against_the_peak_that_it_was_planned_with():
    assert all(gpu.peak_flops in PEAK_BF16_FLOPS.values() for gpu in GPUS.values())
    assert {name.upper() for name in GPUS} <= set(PEAK_BF16_FLOPS)


def test_every_gpu_names_its_source():
    assert all("data sheet" in gpu.source for gpu in GPUS.values())


def test_later_gpus_have_more():
    for earlier, later in (("a100", "h100"), ("h100", "h200"), ("h200", "b200")):
        one, other = named_gpu(earlier), named_gpu(later)
        assert one.memory <= other.memory
        assert one.peak_flops <= other.peak_flops
        assert one.memory_bandwidth < other.memory_bandwidth


def test_an_unknown_gpu_is_named():
    with pytest.raises(ValueError, match="no GPU is called 'v100'; there are: a100, h100, h200, b200"):
        named_gpu("v100")
