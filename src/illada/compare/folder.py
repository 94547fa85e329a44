"""The folder of a study: results for programs, tables for spreadsheets, one page for people, and every run's settings.

results.json    all numbers; report.html and the tables are made of it
runs.csv        one line per arm, seed, look and measure
arms.csv        one line per arm and measure, with its interval
report.html     the page
plans/          the plan of every run, by arm and seed
seconds.json    what the runs took: the only numbers that another machine will not give again
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from illada.compare.conduct import Conducted
from illada.compare.report import report
from illada.compare.run import Pool
from illada.config import to_dict
from illada.durable import write_text

RESULTS, REPORT, RUNS, ARMS, SECONDS, PLANS = (
    "results.json",
    "report.html",
    "runs.csv",
    "arms.csv",
    "seconds.json",
    "plans",
)


def write_study(folder: Path, results: dict[str, Any], conducted: Conducted, pool: Pool, *, command: str) -> None:
    """Write the folder; what is there of an earlier time is replaced, file by file.

    Raises:
        OSError: the disk is full, say.
    """
    (folder / PLANS).mkdir(parents=True, exist_ok=True)
    for (arm, seed), plan in conducted.plans.items():
        write_text(folder / PLANS / f"{_slug(arm)}-{seed}.json", json.dumps(to_dict(plan), indent=2) + "\n")
    write_text(folder / RUNS, _table(("arm", "seed", "at", "measure", "value"), _run_lines(results)))
    write_text(folder / ARMS, _table(("arm", "at", "measure", "mean", "low", "high", "seeds"), _arm_lines(results)))
    seconds = {f"{arm}, seed {seed}": pool.seconds(plan) for (arm, seed), plan in conducted.plans.items()}
    write_text(folder / SECONDS, json.dumps(seconds, indent=2) + "\n")
    write_text(folder / REPORT, report(results, command=command))
    write_text(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def _run_lines(results: dict[str, Any]) -> Iterable[Sequence[object]]:
    for run in results["runs"]:
        for look in run["looks"]:
            for measure, value in look["measures"].items():
                yield run["arm"], run["seed"], look["at"], measure, value


def _arm_lines(results: dict[str, Any]) -> Iterable[Sequence[object]]:
    for arm in results["arms"]:
        for row in arm["measures"]:
            interval = row["interval"]
            yield arm["name"], row["at"], row["measure"], row["value"], interval["low"], interval["high"], row["count"]


def _table(names: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    return text.getvalue()


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
