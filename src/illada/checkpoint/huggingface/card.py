"""The model card: what a model is, what it was trained on and how, written from the files of its run.

Only what those files hold is said. What they do not hold (what the model is for, the licences of its data) is left for
people to write, and the card says that it is missing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from illada.checkpoint.huggingface.configuration import read_json
from illada.checkpoint.huggingface.curves import draw_curves
from illada.checkpoint.saved import SavedModel
from illada.config import to_dict
from illada.model.accounting import count_parameters

_LOSS, _TOKENS = "train/loss_nats_per_token", "train/tokens"
_ROWS = 12

CARD, PICTURE = "README.md", "curves.svg"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run folder says about a run."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Its config.json; empty where there is no run."""
    metrics: Sequence[Mapping[str, int | float]] = ()
    """The lines of metrics.jsonl."""
    results: Sequence[Mapping[str, Any]] = ()
    """What `illada eval --out` wrote into the run folder, or a folder in it."""

    @property
    def data(self) -> list[str]:
        """The sources of the text, or the files of dialogues."""
        corpus, instructions = self.config.get("corpus", {}), self.config.get("instructions", {})
        return [*corpus.get("sources", []), *instructions.get("files", [])]


def read_run(checkpoint: Path) -> RunRecord:
    """The record of the run that a checkpoint lies in, as far as there is one.

    Raises:
        ValueError: a file of it is damaged.
    """
    folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "model_type" in config:  # a published folder: no run of ours
        config = {}
    results = [read_json(path) for path in sorted([*folder.glob("results.json"), *folder.glob("*/results.json")])]
    return RunRecord(config=config, metrics=_lines(folder / "metrics.jsonl"), results=results)


def card_files(
    saved: SavedModel, run: RunRecord, *, layout: str, title: str, license_name: str | None = None
) -> dict[str, str]:
    """README.md, with the front matter that the hub reads, and the picture in it; texts by the names of their files.

    Args:
        saved: the model.
        run: what is known of how it was trained.
        layout: the layout it is written in, by name.
        title: the id that it gets on the hub, or the name of its folder.
        license_name: as the hub writes it: apache-2.0, for one.
    """
    picture = draw_curves(run.metrics, [_LOSS, *_held_out(run.metrics)])
    parts = [
        _front_matter(license_name),
        f"# {title}",
        _what(saved, layout),
        _use(saved, title),
        _data(run),
        _recipe(run),
        _curves(run.metrics, pictured=bool(picture)),
        _scores(run.results),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return {CARD: text, **({PICTURE: picture} if picture else {})}


def _front_matter(license_name: str | None) -> str:
    lines = ["library_name: illada", "pipeline_tag: text-generation", "tags: [masked-diffusion, illada]"]
    if license_name is not None:
        lines.insert(0, f"license: {license_name}")
    return "\n".join(["---", *lines, "---"])


def _what(saved: SavedModel, layout: str) -> str:
    config = saved.model_config
    count = count_parameters(config)
    kind = "A causal language model" if config.attention == "causal" else "A masked diffusion language model"
    rows = {name: value for name, value in to_dict(config).items() if name not in ("attention", "init_std")}
    return (
        f"{kind} of {count.total:,} parameters ({count.non_embedding:,} without embeddings), in the layout of "
        f"`{layout}`, written by `illada`.\n\n"
        + _table(("", ""), ((name, f"{value:,}" if type(value) is int else str(value)) for name, value in rows.items()))
    )


def _use(saved: SavedModel, title: str) -> str:
    call = 'chat([[{"role": "user", "content": "..."}]])[0]' if saved.tokenizer.chat_template else 'generate("...")'
    return f'## Use\n\n```python\nimport illada\n\nmodel = illada.load("{title}")\nprint(model.{call}.text)\n```'


def _data(run: RunRecord) -> str:
    if not run.data:
        return "## Data\n\nNot recorded: the model was exported without its run."
    return "\n".join(["## Data", "", *(f"- `{source}`" for source in run.data)])


def _recipe(run: RunRecord) -> str:
    if not run.config:
        return ""
    loop = run.config.get("loop", {})
    facts = [(name, run.config[name]) for name in ("seed", "average_decay") if run.config.get(name) is not None]
    facts += [(name, loop[name]) for name in ("steps", "batch_size") if name in loop]
    if tokens := [line[_TOKENS] for line in run.metrics if _TOKENS in line]:
        facts.append(("tokens", int(max(tokens))))
    shown = _table(("", ""), ((name, f"{value:,}" if type(value) is int else str(value)) for name, value in facts))
    whole = json.dumps({name: value for name, value in run.config.items() if name != "device"}, indent=2)
    return f"## Recipe\n\n{shown}\n\n<details><summary>All of it</summary>\n\n```json\n{whole}\n```\n\n</details>"


def _held_out(metrics: Sequence[Mapping[str, int | float]]) -> list[str]:
    """The measurements on held-out text that are there, in nats per token."""
    names = {name for line in metrics for name in line if name.startswith("held_out/")}
    return sorted(name for name in names if name.endswith("nats_per_token") and "standard_error" not in name)


def _curves(metrics: Sequence[Mapping[str, int | float]], *, pictured: bool) -> str:
    """The steps at which held-out text was measured, at most twelve of them, first and last included."""
    held_out = _held_out(metrics)
    by_step: dict[int | float, dict[str, int | float]] = {}
    for line in metrics:
        by_step.setdefault(line["step"], {}).update(line)
    readings = [line for line in by_step.values() if not held_out or held_out[0] in line]
    if not readings:
        return ""
    last = len(readings) - 1
    chosen = [readings[number] for number in sorted({round(last * part / (_ROWS - 1)) for part in range(_ROWS)})]
    columns = ["step", _TOKENS, _LOSS, *held_out]
    rows = [[_number(line.get(name), whole=name in ("step", _TOKENS)) for name in columns] for line in chosen]
    return "\n\n".join(["## Curves", *([f"![Loss against the step]({PICTURE})"] * pictured), _table(columns, rows)])


def _scores(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (name, f"{100 * task['share']:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{task['count']:,}")
        for one in results
        for name, task in one["tasks"].items()
        for low, high in [(task["wilson"]["low"], task["wilson"]["high"])]
    ]
    if not rows:
        return ""
    commands = [one["settings"]["run"]["command"] for one in results if "run" in one.get("settings", {})]
    said = "".join(f"\n\n    {command}" for command in commands)
    return "## Scores\n\n" + _table(("task", "right, %", "95 % interval", "questions"), rows) + said


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: int | float | None, *, whole: bool) -> str:
    if value is None:
        return ""
    return f"{int(value):,}" if whole else f"{value:.4g}"


def _lines(path: Path) -> list[dict[str, int | float]]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
