"""The results of `illada compare` for the documentation: a page, a figure and the report of each study, and one file.

illada compare planning
python benchmarks/studies.py --out benchmarks/results/studies_cpu2_202611.json

The studies are carried out by the command; this only copies what they found.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish
from illada.compare.figures import Bar, bars
from illada.compare.folder import RESULTS, SECONDS
from illada.compare.report import claims_figure, final, report
from illada.compare.verdict import is_share, told
from illada.evaluate.markup import STYLE


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the studies lie, and where their pages go."""

    pool: Path = Path("runs/compare")
    docs: Path = Path("docs/results")
    studies: tuple[str, ...] = ("matched", "planning", "reversal", "sft_epochs")
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    records = {}
    table = Table("study", "claim", "outcome")
    for name in settings.studies:
        folder = settings.pool / name
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        whole = report(results, command=f"illada compare {name}")
        (settings.docs / f"{name}-report.html").write_text(whole, encoding="utf-8")
        (settings.docs / f"{name}.svg").write_text(figure(results), encoding="utf-8")
        (settings.docs / f"{name}.md").write_text(page(results, minutes(folder)), encoding="utf-8")
        records[name] = record(results, minutes(folder))
        for claim in results["claims"]:
            table.add_row(name, claim["says"], claim["outcome"])
    print_card("Studies", table)
    publish(describe_run("studies", torch.device("cpu"), vars(settings)) | {"records": records}, settings.out)


def minutes(folder: Path) -> float:
    """Of computing, over all runs of the arms."""
    seconds = json.loads((folder / SECONDS).read_text(encoding="utf-8"))
    return sum(run["whole"] for run in seconds.values()) / 60


def record(results: dict[str, Any], spent: float) -> dict[str, Any]:
    """What the README tells of a study."""
    return {
        "question": results["question"],
        "seeds": len(results["seeds"]),
        "minutes": spent,
        "arms": [
            {key: arm[key] for key in ("name", "budget", "parameters", "steps", "tokens", "flops", "rate")}
            for arm in results["arms"]
        ],
        "claims": [
            {
                **{key: claim[key] for key in ("measure", "better", "worse", "says", "outcome", "sentence")},
                "better_mean": claim["better_mean"]["value"],
                "worse_mean": claim["worse_mean"]["value"],
                "difference": claim["difference"]["value"],
                "interval": claim["difference"]["interval"],
                "corrected_p": claim["corrected_p"],
            }
            for claim in results["claims"]
        ],
        "measures": {
            arm["name"]: {row["measure"]: {"mean": row["value"], **row["interval"]} for row in final(arm)}
            for arm in results["arms"]
        },
    }


def figure(results: dict[str, Any]) -> str:
    """The claims as differences; without claims, the arms' first measure."""
    svg = claims_figure(results)
    if not svg:
        first = final(results["arms"][0])[0]["measure"]
        rows = [
            Bar(name=arm["name"], value=row["value"], low=row["interval"]["low"], high=row["interval"]["high"])
            for arm in results["arms"]
            for row in final(arm)
            if row["measure"] == first
        ]
        svg = bars(rows, title=first, share=is_share(first))
    head, rest = svg.split(">", 1)
    paper = "<rect width='100%' height='100%' fill='var(--paper)'/>"
    return f"{head}><style>{STYLE}svg {{ margin: 0 }}</style>{paper}{rest}\n"


def page(results: dict[str, Any], spent: float) -> str:
    """The study in Markdown."""
    name, first = results["study"], results["arms"][0]
    tokens = " and ".join(f"{count / 1e6:.2f}M of {stage}" for stage, count in first["tokens"].items())
    lines = [
        f"# {name}",
        "",
        results["question"],
        "",
        (
            f"{first['parameters']:,} parameters, {tokens} tokens, {len(results['seeds'])} seeds, {spent:.0f} minutes "
            "of one thread of a busy CPU without the sweep. "
            f"[The whole report]({name}-report.html) has every figure, the sweep of learning rates and all settings."
        ),
        "",
        "```bash",
        f"illada compare {name}",
        "```",
        "",
        f"![Differences of the claims with their intervals]({name}.svg)",
        "",
        "## What the data allow to say",
        "",
        *(f"- {claim['sentence']}" for claim in results["claims"]),
        "",
        "## Measured",
        "",
        *measures(results),
        "",
        "Mean over seeds with its 95 % interval (Student's t). A diffusion model's nats are a bound, which lies above",
        "the value that it bounds by an unknown amount; it need not be worse for being higher than a twin's value.",
        "",
    ]
    return "\n".join(lines)


def measures(results: dict[str, Any]) -> list[str]:
    """One line per measure, one column per arm."""
    names = [arm["name"] for arm in results["arms"]]
    known = {arm["name"]: {row["measure"]: row for row in final(arm)} for arm in results["arms"]}
    lines = [f"| measure | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for measure in dict.fromkeys(measure for rows in known.values() for measure in rows):
        cells = [cell(measure, known[name].get(measure)) for name in names]
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return lines


def cell(measure: str, row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row["interval"]["low"], row["interval"]["high"]
    if is_share(measure):
        low, high = max(0.0, low), min(1.0, high)
    return f"{told(measure, row['value'])} [{told(measure, low)}, {told(measure, high)}]"


if __name__ == "__main__":
    main()
