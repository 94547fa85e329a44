import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def module():
    """Import a benchmark as its own directory sees it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.fixture(scope="module")
def train_step(module):
    return module("train_step")


@pytest.fixture(scope="module")
def minute(train_step):
    """Settings of a minute size, with split rows."""
    return train_step.Settings(quick=True, split=True, device="cpu", **train_step.QUICK)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the command prints, and the file that it writes."""
    out = tmp_path_factory.mktemp("results") / "new" / "result.json"
    command = [sys.executable, "-W", "error", str(BENCHMARKS / "train_step.py"), "--quick", "--split"]
    command += ["--device", "cpu", "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    return done.stdout, json.loads(out.read_text())


def batch_of(train_step, settings, number=0):
    return train_step.corrupted_batch(settings, 64, number, device=CPU)


def test_the_last_line_of_the_output_is_the_written_result(run):
    printed, written = run
    assert json.loads(printed.splitlines()[-1]) == written
    assert "times as fast" in printed


def test_a_result_says_where_it_comes_from(run):
    _, result = run
    assert result["subject"] == "train_step"
    assert result["torch"] == torch.__version__
    assert result["settings"]["split"] is True
    assert result["threads"] == 1
    assert all(result[key] for key in ("device", "commit", "date"))


def test_every_contender_has_its_speed_and_memory(run):
    _, result = run
    (record,) = result["records"]
    assert record["vocab_size"] == 64
    assert record["rounds"] == 2
    plain, illada = record["contenders"]
    assert (plain["name"], plain["chunk_logits"]) == ("plain", None)
    assert (illada["name"], illada["chunk_logits"]) == ("illada", 512)
    assert plain["times_as_fast"]["median"] == 1
    for line in (plain, illada):
        assert line["tokens_per_second"] == pytest.approx(2 * 16 / line["seconds"]["median"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of the resident memory")
def test_the_process_needs_more_memory_than_the_step(run):
    _, result = run
    for line in result["records"][0]["contenders"]:
        assert 0 <= line["memory"]["step_bytes"] < line["memory"]["process_bytes"]
        assert 100 * 2**20 < line["memory"]["process_bytes"] < 4 * 2**30
        assert line["memory_part"]["process"] == pytest.approx(1, abs=0.2)


def test_the_reference_agrees_with_the_library_on_split_rows(train_step, minute):
    settings = train_step.replace(minute, rows=12)
    batch = batch_of(train_step, settings)
    assert 0 < int((batch.segments.amax(1) > 0).sum()) < 12
    contenders = train_step.contenders_at(64, settings)
    differences = train_step.check_agreement(contenders[None], contenders[512], batch)
    assert differences["loss"] < 1e-5
    assert differences["gradient"] < 1e-4


@pytest.mark.parametrize("name", ["embedding.weight", "blocks.1.attention.k_proj.weight", "norm.weight"])
def test_another_weight_in_the_reference_is_noticed(train_step, minute, name):
    contenders = train_step.contenders_at(64, minute)
    with torch.no_grad():
        dict(contenders[None].model.named_parameters())[name].mul_(1.1)
    with pytest.raises(AssertionError, match="differ"):
        train_step.check_agreement(contenders[None], contenders[512], batch_of(train_step, minute))


def test_a_reference_that_sees_across_the_cut_is_noticed(train_step, minute):
    settings = train_step.replace(minute, rows=12)
    contenders = train_step.contenders_at(64, settings)
    split = batch_of(train_step, settings)
    whole = split._replace(segments=torch.zeros_like(split.segments))
    blind = train_step.replace(contenders[None], loss=lambda model, _: train_step.plain_loss(model, whole))
    with pytest.raises(AssertionError, match="differ"):
        train_step.check_agreement(blind, contenders[512], split)


def test_a_step_changes_the_weights_alike_in_both(train_step, minute):
    contenders = train_step.contenders_at(64, minute)
    for contender in contenders.values():
        for group in contender.optimizer.param_groups:
            group["lr"] = 1e-3
    before = contenders[None].model.embedding.weight.detach().clone()
    for contender in contenders.values():
        contender.step(batch_of(train_step, minute))
    plain, library = (contenders[key].model.state_dict() for key in (None, 512))
    assert not torch.equal(plain["embedding.weight"], before)
    for name, value in plain.items():
        # Adam's first step is the sign of the gradient: where that is zero but for rounding, the signs may differ
        assert float((value - library[name]).abs().median()) < 1e-6, name


def test_half_of_the_positions_are_masked_and_rows_are_split_on_request_only(train_step, minute):
    settings = train_step.replace(minute, rows=200, split=False)
    batch = batch_of(train_step, settings)
    assert not batch.segments.any()
    assert float(batch.masked.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(batch.noisy == train_step.MASK_ID, batch.masked)
    packed = batch_of(train_step, train_step.replace(settings, split=True))
    assert float(packed.segments.amax(1).float().mean()) == pytest.approx(0.3, abs=0.1)
    assert not packed.segments[:, 0].any()
    assert bool((packed.segments.diff(dim=1) >= 0).all())


def test_rounds_go_on_until_both_their_number_and_their_time_are_reached(train_step, minute):
    contenders = train_step.contenders_at(64, minute)
    settings = train_step.replace(minute, rounds=3)
    seconds = train_step.time_rounds(contenders, settings, 64, device=CPU)
    assert [len(values) for values in seconds.values()] == [3, 3]
    longer = train_step.time_rounds(contenders, train_step.replace(settings, min_seconds=0.5), 64, device=CPU)
    assert len(longer[None]) >= 3
    assert sum(map(sum, longer.values())) < 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of the resident memory")
def test_the_peak_counts_what_was_given_back_before_the_end(module):
    card = module("card")
    keep = []

    def work():
        torch.ones(40 * 2**20 // 4)
        keep.append(torch.ones(8 * 2**20 // 4))

    before, peak = card.peak_bytes(work, CPU)
    assert peak - before == pytest.approx(40 * 2**20, rel=0.25)


def test_spread_is_the_quartiles(module):
    spread = module("card").spread
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"q1": 2.0, "median": 3.0, "q3": 4.0}
    assert spread([7.0]) == {"q1": 7.0, "median": 7.0, "q3": 7.0}


def test_outside_a_checkout_the_commit_is_unknown(module, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert module("card").commit(tmp_path) == "unknown"


def test_the_profile_sorts_all_time_into_groups(module, capsys):
    profile_step = module("profile_step")
    profile_step.main(profile_step.Options(quick=True, steps=2, device="cpu"))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["subject"] == "profile_step"
    assert sum(result["shares"].values()) == pytest.approx(1)
    assert result["shares"]["matrix products"] > 0
    assert result["shares"]["attention"] > 0
    names = [operator["name"] for operator in result["operators"]]
    assert "aten::mm" in names
    assert result["milliseconds_per_step"] >= sum(operator["milliseconds"] for operator in result["operators"])


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm_", "matrix products"),
        ("aten::add_", "additions and multiplications"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::reshape", "everything else"),
    ],
)
def test_operators_belong_to_their_group(module, name, group):
    assert module("profile_step").group_of(name) == group
