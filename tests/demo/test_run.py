"""The whole demo in seconds: small recipe, small text, hardly any training."""

import io
import random
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import illada.demo.run as demo
from illada.checkpoint.native import list_checkpoints
from illada.config import from_json
from illada.data.corpus import CorpusConfig
from illada.data.packing import PackingConfig
from illada.data.tokenizer import Tokenizer
from illada.demo.live import DenoisingView
from illada.demo.run import DemoConfig, DemoResult, run_demo, step_seconds, text_config
from illada.demo.watch import text_pieces, watch
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.recipes.pretraining import tiny
from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill
from illada.track.sinks import read_jsonl
from illada.train.loop import LoopConfig
from illada.train.pretrain import PretrainConfig

MODEL = ModelConfig(hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=256)
SUDOKU_MODEL = replace(demo.MODEL, hidden_size=16, layers=1, heads=2, kv_heads=2, ffn_size=24)


@pytest.fixture(scope="module")
def small_recipe(tmp_path_factory):
    """A stand-in for the recipe `tiny`, on a small text."""
    chance = random.Random(0)
    names = ["read", "path", "name", "self", "for", "in", "def", "print"]
    file = tmp_path_factory.mktemp("text") / "text.py"
    file.write_text("\n".join(" ".join(chance.choices(names, k=6)) for _ in range(600)))
    recipe = replace(
        tiny(),
        model=MODEL,
        corpus=CorpusConfig(sources=(str(file),), vocab_size=300, workers=1),
        packing=PackingConfig(length=32),
        loop=LoopConfig(steps=40, batch_size=4, precision="fp32", log_every=10),
        device="cpu",
    )
    return lambda: recipe


@pytest.fixture(scope="module")
def shown(small_recipe, tmp_path_factory):
    """(folder, result, report's text, console's text) of one demo."""
    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "tiny", small_recipe)
    patch.setattr(demo, "MODEL", SUDOKU_MODEL)
    patch.setattr("illada.demo.sudoku.MODEL", SUDOKU_MODEL)
    place = tmp_path_factory.mktemp("demo")
    output = io.StringIO()
    config = DemoConfig(text_minutes=0.02, sudoku_minutes=0.02)
    result = run_demo(config, place / "run", cache=place / "cache", console=Console(file=output, width=100))
    patch.undo()
    page = (place / "run" / "report.html").read_text(encoding="utf-8")
    return place / "run", result, page, output.getvalue()


# --- the run ------------------------------------------------------------------------------------------------------


def test_the_folder_is_a_run_with_a_report(shown):
    folder, _, _, _ = shown
    expected = {"config.json", "metrics.jsonl", "checkpoints", "report.html", "demo.json"}
    assert expected <= {path.name for path in folder.iterdir()}
    told = from_json(PretrainConfig, (folder / "config.json").read_text())
    assert told.loop.steps >= 40
    assert told.loop.max_minutes == pytest.approx(0.025)
    assert len(list_checkpoints(folder / "checkpoints")) == 1


def test_the_result_is_what_the_metrics_say(shown):
    folder, result, _, _ = shown
    metrics = read_jsonl(folder / "metrics.jsonl")
    bits = [line["held_out/bits_per_byte"] for line in metrics if "held_out/bits_per_byte" in line]
    tokens = [line["train/tokens"] for line in metrics if "train/tokens" in line]
    assert (result.bits_per_byte_untrained, result.bits_per_byte) == (bits[0], bits[-1])
    assert result.fall == pytest.approx((bits[0] - bits[-1]) / bits[0])
    assert result.tokens == tokens[-1]
    assert result.steps == list_checkpoints(folder / "checkpoints")[-1][0]
    assert 0 <= result.sudoku_solved <= result.sudoku_boards == 58
    assert 0 < result.minutes < 5
    assert from_json(DemoResult, (folder / "demo.json").read_text()) == result


def test_the_report_holds_the_facts(shown):
    _, result, page, _ = shown
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["held-out bits/byte"] == f"{result.bits_per_byte_untrained:.2f} → {result.bits_per_byte:.2f}"
    assert facts["less than untrained"] == f"{result.fall:.0%}"
    assert facts["tokens trained on"] == f"{result.tokens:,}"
    assert facts["sudoku, unseen boards"] == f"{result.sudoku_solved} of 58 correct"
    assert float(facts["minutes in all"]) == pytest.approx(result.minutes, abs=0.051)


def test_the_report_shows_both_texts_and_the_boards(shown):
    _, _, page, _ = shown
    assert "generated after a prompt" in page
    assert "filled in between two texts" in page
    assert "def read(self, path):" in page
    assert page.count("held out") >= 1


def test_the_report_needs_nothing_from_elsewhere(shown):
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", shown[2])


def test_the_console_tells_the_story(shown):
    folder, _, _, output = shown
    for part in (
        "pre-training on the source code",
        "bits per byte untrained",
        "generate",
        "infill",
        "boards that it never trained on are solved, 9 blanks each",
        f"report: {folder / 'report.html'}",
    ):
        assert part in output


def test_a_folder_in_use_is_refused(shown, small_recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "tiny", small_recipe)
    with pytest.raises(FileExistsError, match="holds a run already"):
        run_demo(DemoConfig(text_minutes=0.001), shown[0], cache=tmp_path, console=Console(quiet=True))


def test_a_demo_that_runs_out_of_time_still_reports(small_recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "tiny", small_recipe)
    monkeypatch.setattr(demo, "MODEL", SUDOKU_MODEL)
    monkeypatch.setattr("illada.demo.sudoku.MODEL", SUDOKU_MODEL)
    config = DemoConfig(text_minutes=1e-6, sudoku_minutes=1e-6)
    result = run_demo(config, tmp_path / "run", cache=tmp_path / "cache", console=Console(quiet=True))
    assert result.steps == 1
    assert "bits/byte" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


# --- how long -----------------------------------------------------------------------------------------------------


def test_more_minutes_are_more_steps(small_recipe, monkeypatch):
    monkeypatch.setattr(demo, "tiny", small_recipe)
    monkeypatch.setattr(demo, "step_seconds", lambda *arguments, **options: 0.1)
    configs = [text_config(DemoConfig(text_minutes=minutes)) for minutes in (0.01, 1.0, 10.0)]
    assert [config.loop.steps for config in configs] == [
        40,
        round(60 / (demo.OVERHEAD * 0.1)),
        round(600 / (demo.OVERHEAD * 0.1)),
    ]
    for config in configs:
        assert config.loop.checkpoint_every == config.loop.steps
        assert config.loop.validate_every == max(10, config.loop.steps // 6)


def test_the_schedule_of_a_short_run_is_warm_before_it_decays(small_recipe, monkeypatch):
    monkeypatch.setattr(demo, "tiny", small_recipe)
    monkeypatch.setattr(demo, "step_seconds", lambda *arguments, **options: 1e9)
    config = text_config(DemoConfig())
    rates = [config.learning_rate.rate(step, steps=config.loop.steps) for step in range(config.loop.steps)]
    assert max(rates) == config.learning_rate.peak
    assert rates[-1] == pytest.approx(config.learning_rate.floor)


def test_a_step_takes_time():
    assert 0 < step_seconds(replace(MODEL, vocab_size=50), rows=2, length=8) < 10


@pytest.mark.parametrize("minutes", [(0.0, 1.0), (1.0, -1.0)])
def test_no_time_at_all_is_refused(minutes):
    with pytest.raises(ValueError, match=f"both times must be positive, got {minutes[0]} and {minutes[1]} minutes"):
        DemoConfig(text_minutes=minutes[0], sudoku_minutes=minutes[1])


# --- from the sampler to the view ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["for name in names: print(name)"] * 3, 270)


def test_every_token_has_a_text_of_its_own(tokenizer):
    specials = tokenizer.specials
    tokens = [specials.bos, *tokenizer.encode("for name"), specials.mask, specials.eos, specials.pad]
    pieces = text_pieces(tokenizer, tokens)
    assert "".join(piece for piece in pieces[1:-3] if piece is not None) == "for name"
    assert [pieces[0], *pieces[-3:]] == ["", None, "", ""]


def test_the_view_is_drawn_after_every_step(tokenizer):
    seen = []

    class Recorder(DenoisingView):
        def update(self, pieces, fresh):
            seen.append((list(pieces), set(fresh)))

    model = Transformer(replace(MODEL, vocab_size=tokenizer.vocab_size))
    initialize(model, seed=0)
    given = tokenizer.encode("for ")
    canvas = Canvas(tokens=(*given, None, None, None))
    with Recorder(Console(file=io.StringIO()), title="test") as view:
        (filled,) = fill(
            model.eval(),
            [canvas],
            SamplingParams(length=3),
            mask_id=tokenizer.specials.mask,
            on_step=watch(view, tokenizer),
        )
    assert [pieces.count(None) for pieces, _ in seen] == [2, 1, 0]
    assert [len(fresh) for _, fresh in seen] == [1, 1, 1]
    assert seen[-1][0] == text_pieces(tokenizer, list(filled.tokens))
    order = [filled.revealed_at.index(step) for step in (1, 2, 3)]
    assert [fresh.pop() for _, fresh in seen] == order


def test_only_the_first_row_is_watched(tokenizer):
    seen = []

    class Recorder(DenoisingView):
        def update(self, pieces, fresh):
            seen.append((list(pieces), set(fresh)))

    (letter,) = tokenizer.encode("x")
    tokens = torch.tensor([[letter, tokenizer.specials.mask], [letter, letter]])
    revealed = torch.tensor([[True, False], [False, True]])
    watch(Recorder(Console(file=io.StringIO()), title="test"), tokenizer)(1, tokens, revealed)
    assert seen == [(["x", None], {0})]
