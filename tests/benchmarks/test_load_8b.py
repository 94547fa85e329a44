"""The benchmark of loading, in small; with ILLADA_TEST_8B=1 on the full shape: 15.2 GB of disk and 17 GB of memory."""

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "load_8b.py"


def measured(tmp_path, *flags):
    out = tmp_path / "result.json"
    command = [sys.executable, "-W", "error", str(BENCHMARK), "--out", str(out), "--scratch", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == result
    assert [path for path in tmp_path.iterdir() if path != out] == []  # the folder is removed
    return result["measured"], result["quantised"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of the memory is read from /proc")
@pytest.mark.skipif(find_spec("torchao") is None, reason="the extra quant is not installed")
def test_a_small_folder_is_made_measured_and_removed(tmp_path):
    flags = ["--size", "base", "--layers", "2", "--shard-bytes", "30000000", "--threads", "1"]
    found, quantised = measured(tmp_path, *flags, "--quantize", "int8")
    assert list(quantised) == ["int8"]
    assert quantised["int8"]["peak_bytes"] > 0
    assert found["weights_bytes"] == 2 * (
        32_768 * 768 + 2 * (2 * 768**2 + 2 * 768 * 256 + 3 * 768 * 2304 + 2 * 768) + 768
    )
    assert found["peak_bytes"] == max(found["load_peak_bytes"], found["forward_peak_bytes"])
    assert found["over_weights_bytes"] == found["peak_bytes"] - found["weights_bytes"] > 0
    assert found["load_seconds"] > 0


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    module = importlib.import_module("load_8b")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=16_000_000_000))
    with pytest.raises(SystemExit, match=r"has 16\.0 GB free, and the folder needs 15\.2: --scratch DIR"):
        module.make(module.Settings(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.environ.get("ILLADA_TEST_8B") != "1", reason="needs 17 GB of memory: set ILLADA_TEST_8B=1")
def test_8b_loads_within_its_weights_and_a_gibibyte_and_in_few_bits_within_9_and_6(tmp_path):
    found, quantised = measured(tmp_path)
    assert quantised["int8"]["peak_bytes"] <= 9 * 2**30
    assert quantised["int4"]["peak_bytes"] <= 6 * 2**30
    assert found["weights_bytes"] == 2 * 7_615_025_152
    assert found["over_weights_bytes"] <= 2**30
