"""Whole evaluations by lm-eval, on the task files of `examples/lm_eval` and on small ones, without a network."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from illada.assets import INSTRUCT
from illada.evaluate.perplexity import perplexity
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel, load

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install illada[eval]")

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from illada.harness.model import IlladaLM
from illada.harness.settings import MODEL_ARGUMENTS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "lm_eval"
TASKS = [str(EXAMPLES / "larger.yaml"), str(EXAMPLES / "reversed.yaml")]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch, tmp_path):
    """The task files name their data from there; what `datasets` keeps goes elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def instruct():
    return load(INSTRUCT)


def evaluated(lm, tasks=TASKS, **options):
    """The scores and the answers; lm-eval's own thousands of task files are not looked through."""
    manager = TaskManager(include_defaults=False)
    found = simple_evaluate(model=lm, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options)
    return found["results"], found["samples"]


def rows_of(name):
    return [json.loads(line) for line in (EXAMPLES / f"{name}.jsonl").read_text().splitlines()]


# --- who knows the answers ----------------------------------------------------------------------------------------


class Oracle(Transformer):
    """A table from the tokens of prompts to those behind them, which it says wherever it is asked."""

    def __init__(self, vocab_size, known):
        shape = {"hidden_size": 4, "layers": 1, "heads": 1, "kv_heads": 1, "ffn_size": 4, "max_length": 512}
        super().__init__(ModelConfig(vocab_size=vocab_size, **shape))
        self.known = known

    def forward(self, tokens, segments=None):
        hidden = torch.zeros(*tokens.shape, 1)
        for row, ids in enumerate(tokens.tolist()):
            prompt = max((known for known in self.known if tuple(ids[: len(known)]) == known), key=len)
            text = [*prompt, *self.known[prompt], *[0] * len(ids)]
            hidden[row, :, 0] = torch.tensor(text[: len(ids)], dtype=torch.float32)
        return hidden

    def recompute(self, tokens, cache, selection, *others):
        hidden = torch.zeros(len(tokens), 1)
        for slot in selection.slots:
            row = selection.slot == slot
            hidden[row] = self.forward(tokens[row][None])[0]
        return hidden

    def logits(self, hidden):
        return 20.0 * torch.nn.functional.one_hot(hidden[..., 0].long(), self.config.vocab_size).float()


def oracle(tokenizer, *, chat, right):
    """Knows all answers, or believes in wrong ones."""
    known = {}
    model = LanguageModel(transformer=Oracle(tokenizer.vocab_size, known), tokenizer=tokenizer)

    def learn(question, answer):
        if chat:
            prompt = model.chat_template.encode([{"role": "user", "content": question}])
        else:
            prompt = [tokenizer.specials.bos, *tokenizer.encode(question)]
        known[tuple(prompt)] = [*tokenizer.encode(answer), tokenizer.specials.eos]

    for row in rows_of("larger"):
        choice = row["choices"][row["answer"] if right else 1 - row["answer"]]
        learn(row["question"], choice if chat else f" {choice}")
    for row in rows_of("reversed"):
        learn(row["question"], (row["answer"] if right else "a b c") + "\nand so on")
    return model


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("method", ["confidence", "likelihood", "chain"])
def test_who_knows_the_answers_gets_all_of_them(instruct, chat, method):
    """So prompts, delimiters, choices, stop strings and the order of the answers come through lm-eval unharmed."""
    for right in (True, False):
        lm = IlladaLM(pretrained=oracle(instruct.tokenizer, chat=chat, right=right), method=method, samples=4)
        results, samples = evaluated(lm, apply_chat_template=chat, fewshot_as_multiturn=chat)
        assert results["illada_larger"]["acc,none"] == right
        assert results["illada_reversed"]["exact_match,none"] == right
        assert [len(samples[name]) for name in ("illada_larger", "illada_reversed")] == [16, 12]
        assert all(sample["resps"][0][0].count("\n") == 0 for sample in samples["illada_reversed"])


def test_solved_examples_are_turns_before_the_question(instruct):
    """What lm-eval puts together is what the pipeline is asked."""
    lm = IlladaLM(pretrained=instruct)
    task = yaml_task("reversed", fewshot_split="test", num_fewshot=2)
    _, samples = evaluated(lm, [task], apply_chat_template=True, fewshot_as_multiturn=True, limit=3)
    for sample in samples["illada_reversed"]:
        [[prompt, settings]] = sample["arguments"]
        turns = prompt.split("[USER]")[1:]
        assert len(turns) == 3
        messages = [{"role": "user", "content": turns[-1].removesuffix("[ASSISTANT]")}]
        for turn in reversed(turns[:-1]):
            asked, answer = turn.split("[ASSISTANT]")
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}, *messages]
        [expected] = instruct.chat([messages], length=settings["max_gen_toks"], stop=("\n",))
        assert sample["resps"] == [[expected.text]]


def yaml_task(name, **changes):
    """A task file of the examples as lm-eval's own data, changed."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return {**load_yaml(EXAMPLES / f"{name}.yaml"), **changes}


def test_the_model_of_the_package_does_well_on_the_examples():
    """All right when this was written: it has learnt to reverse letters, and to compare short numbers."""
    results, _ = evaluated("illada", model_args=f"pretrained={INSTRUCT}", apply_chat_template=True, batch_size=16)
    assert results["illada_larger"]["acc,none"] >= 0.8
    assert results["illada_reversed"]["exact_match,none"] >= 0.8


# --- other kinds of tasks -----------------------------------------------------------------------------------------


@pytest.fixture
def task_of(tmp_path):
    """A task from rows, in a file as a user would write it."""

    def make(rows, **fields):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
        return {"task": "mine", **data, "test_split": "test", "metadata": {"version": 1}, **fields}

    return make


def test_texts_are_measured_as_by_perplexity(model, task_of):
    texts = ["the cat sat on the mat and the dog sat on the log " * 4, "a man in a hat"]
    task = task_of(
        [{"page": text} for text in texts],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{page}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )
    results, _ = evaluated(IlladaLM(pretrained=model, rolling_samples=5), [task])
    specials = model.tokenizer.specials
    expected = perplexity(
        model.transformer,
        model.tokenizer.encode_batch(texts),
        bos_id=specials.bos,
        mask_id=specials.mask,
        byte_count=sum(len(text.encode()) for text in texts),
        samples=5,
    )
    assert results["mine"]["bits_per_byte,none"] == pytest.approx(expected.bits_per_byte, rel=1e-6)


def test_last_words_are_scored_and_told_whether_they_are_greedy(model, task_of):
    rows = [{"text": "the cat sat on the", "word": "mat"}, {"text": "the dog", "word": "sat"}]
    task = task_of(
        rows,
        output_type="loglikelihood",
        doc_to_text="{{text}}",
        doc_to_target="{{' ' + word}}",
        metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
    )
    results, _ = evaluated(IlladaLM(pretrained=model), [task])
    scores = [model.score(row["text"], [" " + row["word"]], greedy=True)[0] for row in rows]
    nats = [score.log_probability for score in scores]
    assert results["mine"]["perplexity,none"] == pytest.approx(math.exp(-sum(nats) / 2), rel=1e-6)
    assert results["mine"]["acc,none"] == sum(score.greedy for score in scores) / 2


# --- the page about it --------------------------------------------------------------------------------------------


def test_the_task_files_of_the_page_are_those_of_the_examples(tmp_path):
    from lm_eval.tasks._yaml_loader import load_yaml

    page = (ROOT / "docs" / "how-to" / "lm-eval.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(TASKS)
    for block, file in zip(blocks, TASKS, strict=True):
        (tmp_path / "shown.yaml").write_text(block)
        shown, used = load_yaml(tmp_path / "shown.yaml"), load_yaml(file)
        assert shown == {name: used[name] for name in shown}


def test_every_model_argument_of_the_page_is_one():
    page = (ROOT / "docs" / "how-to" / "lm-eval.md").read_text(encoding="utf-8")
    table = page.partition("## Model arguments")[2].partition("\n\nA causal")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(named) > 15
    assert set(named) <= set(MODEL_ARGUMENTS)


# --- the command line ---------------------------------------------------------------------------------------------


def test_lm_evals_own_command_knows_the_model(tmp_path):
    """`lm_eval --model illada` with task files that name ours, offline, in a process of its own."""
    command = [
        *(Path(sys.executable).parent / "lm_eval", "--model", "illada"),
        *("--model_args", f"pretrained={INSTRUCT},method=confidence", "--tasks", ",".join(TASKS)),
        *("--apply_chat_template", "--limit", "3", "--batch_size", "auto", "--output_path", tmp_path / "results"),
    ]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "|illada_larger" in done.stdout
    [file] = (tmp_path / "results").rglob("results_*.json")
    results = json.loads(file.read_text())
    assert results["results"]["illada_reversed"]["exact_match,none"] == 1.0
    assert results["config"]["model_num_parameters"] == 3_766_112
    assert results["chat_template"] is not None
