"""Writes the README's tables of results from the files in benchmarks/results: no figure is typed by hand.

python benchmarks/readme.py            rewrite the table
python benchmarks/readme.py --check    exit with 1 if it is not what the files say
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN = "<!-- results: written by benchmarks/readme.py from benchmarks/results/ -->\n"
END = "<!-- end of results -->"
STUDIES_BEGIN = "<!-- studies: written by benchmarks/readme.py from benchmarks/results/ -->\n"
STUDIES_END = "<!-- end of studies -->"


def main(arguments: list[str]) -> int:
    text = README.read_text(encoding="utf-8")
    wanted = between(between(text, BEGIN, table(), END), STUDIES_BEGIN, studies(), STUDIES_END)
    if arguments == ["--check"]:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


def between(text: str, begin: str, content: str, end: str) -> str:
    """The text with this content between the two marks."""
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{content}{end}{after}"


def studies() -> str:
    """What the comparisons found, claim by claim."""
    lines = []
    for path in sorted(RESULTS.glob("studies_*.json")):
        for name, study in json.loads(path.read_text())["records"].items():
            first = study["arms"][0]
            tokens = ", ".join(f"{count / 1e6:.2f}M tokens of {stage}" for stage, count in first["tokens"].items())
            lines += [
                (
                    f"[{name}](docs/results/{name}.md): {study['question']} "
                    f"{first['parameters'] / 1e6:.2f}M parameters, {tokens}, {study['seeds']} seeds. "
                    f"`illada compare {name}`"
                ),
                "",
                "| claim | measured | difference, 95 % | corrected p | outcome |",
                "|---|---|---|---|---|",
                *(f"| {' | '.join(claim_cells(claim))} |" for claim in study["claims"]),
                "",
            ]
    return "\n".join(lines)


def claim_cells(claim: dict[str, Any]) -> list[str]:
    share = claim["measure"].startswith(("exact", "choice"))
    scale, unit, digits = (100, " points", 1) if share else (1, "", 3)
    low, high = claim["interval"]["low"], claim["interval"]["high"]
    if share:
        low, high = max(-1.0, low), min(1.0, high)
    ends = ", ".join(f"{scale * value:+.{digits}f}" for value in (low, high))
    means = [f"{scale * claim[key]:.{digits}f}{' %' if share else ''}" for key in ("better_mean", "worse_mean")]
    p_value = "< 0.001" if claim["corrected_p"] < 0.001 else f"{claim['corrected_p']:.3f}"
    outcome = {"contradicted": "the opposite is shown", "open": "not decided"}.get(claim["outcome"], claim["outcome"])
    gap = f"{scale * claim['difference']:+.{digits}f}{unit} [{ends}]"
    return [claim["says"], " against ".join(means), gap, p_value, f"**{outcome}**"]


def table() -> str:
    """The tables in Markdown, a part of the package each."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = []
    for title, subjects in PARTS.items():
        lines += [f"**{title}**", "", "| what | measured | with |", "|---|---|---|"]
        for subject, rows_of in subjects.items():
            for result in (one for one in found if one["subject"] == subject):
                command = f"`{result.get('command', f'python benchmarks/{subject}.py')}`"
                lines += [f"| {what} | {value} | {command} |" for what, value in rows_of(result)]
        lines += [""]
    return "\n".join(lines) + f"\n{machine()}\n"


def machine() -> str:
    """On what the results were measured."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    machines = sorted({f"{r['device']}, {r['threads']} threads, torch {r['torch']}" for r in results})
    return f"Measured on {'; '.join(machines)}. Your figures will differ; the ratios should not by much."


def demo_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    measured = result["measured"]
    before, after = measured["bits_per_byte_untrained"], measured["bits_per_byte"]
    return [
        (
            f"demo: held-out bits per byte after {measured['tokens']:,} tokens",
            f"{before:.2f} → {after:.2f} ({result['fall']:.0%} less)",
        ),
        (
            "demo: 4x4 sudoku boards solved that it never trained on",
            f"{measured['sudoku_solved']} of {measured['sudoku_boards']}",
        ),
        ("demo: from the command to the report", f"{result['wall_minutes']:.1f} minutes"),
    ]


def train_step_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for record in result["records"]:
        fast = next(line for line in record["contenders"] if line["name"] == "illada")
        ratio, part = fast["times_as_fast"], fast["memory_part"]
        speed = f"{ratio['median']:.2f}x tokens/s [{ratio['q1']:.2f}, {ratio['q3']:.2f}]"
        memory = f"{part['step']:.2f} of the step's memory, {part['process']:.2f} of the process's"
        kind = ", blocks compiled" if result["settings"].get("compile") else ""
        kind += ", packed rows" if result["settings"]["split"] else ""
        what = f"training step{kind} against the plain reference, vocabulary {record['vocab_size']:,}"
        rows.append((what, f"{speed}, {memory}"))
    return rows


def base_bound_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    bits = result["bits_per_byte"]
    bound = f"at most {bits['bound']:.3f} ± {bits['bound_standard_error']:.3f}"
    others = f"gzip {bits['gzip']:.3f}, bz2 {bits['bz2']:.3f}, unigram {bits['unigram_of_tokens']:.3f}"
    return [(f"base model of the package, bits per byte of {result['settings']['text']}", f"{bound}; {others}")]


def styles_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    tokens = f"{result['settings']['tokens'] / 1e6:.0f}M tokens each"
    skills = ", ".join(result["settings"]["skills"])
    parts = []
    for record in result["records"]:
        overall = record["scores"]["overall"]
        low, high = overall["interval"]["low"], overall["interval"]["high"]
        parts.append(f"{record['style']} {overall['exact_match']:.0%} [{low:.0%}, {high:.0%}]")
    return [(f"styles of fine-tuning, {tokens}: exact match on {skills}", "; ".join(parts))]


def frontier_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    first = result["points"][0]
    best = next(point for point in result["points"] if all(point[key] == result["best"][key] for key in result["best"]))
    what = f"{first['count']:,} questions of {', '.join(result['tasks'])}: plain, and the cheapest that loses nothing"
    plain = f"{first['exact_match']:.1%} exact, {first['forwards']:.1f} forwards an answer"
    fast = f"{best['exact_match']:.1%}, {best['forwards']:.1f} ({best['caching']} + {best['unmasking']})"
    return [(what, f"{plain}; {fast}")]


def fast_generation_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for record in result["answers"]:
        if record["contender"] == "illada --fast":
            what = f"time per answer against the published sampler, canvas of {record['length']}"
            rows.append((what, f"{record['times_as_fast']['median']:.0f}x"))
    for record in result["stories"]:
        if record["contender"].startswith("illada"):
            name = record["contender"].removeprefix("illada, ")
            what = f"time per token against the published sampler, {record['length']} tokens: {name}"
            rows.append((what, f"{record['times_as_fast']['median']:.1f}x"))
    seconds = {(one["length"], one["contender"]): one["seconds"]["median"] for one in result["stories"]}
    for length, contender in seconds:
        if contender in ("illada, threshold 0.9", "illada --fast"):
            name = contender.removeprefix("illada, ")
            what = f"time per token against a dual cache with threshold 0.9, {length} tokens: {name}"
            ratio = seconds[length, "dual cache, threshold 0.9"] / seconds[length, contender]
            rows.append((what, f"{ratio:.1f}x"))
    return rows


def crowd_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    count = result["settings"]["requests"]
    equal = f"{result['equal_to_solo']} of {count} answers equal to those alone"
    return [(f"{count} mixed requests together against one at a time", f"{result['times_as_fast']:.1f}x; {equal}")]


def generate_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    short, long = result["settings"]["growth"]
    what = f"{result['settings']['preset']}: seconds per token of {long:,} tokens against {short}"
    return [(what, f"{result['growth']['ratio']:.2f}x")]


def twin_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for skill, record in result["records"].items():
        shares = [f"{record[name]['correct'] / record[name]['count']:.0%}" for name in ("diffusion", "autoregressive")]
        speed = f"{record['times_as_fast_single']['median']:.1f}x at batch 1"
        many = f"{record['times_as_fast_batched']['median']:.1f}x at batch {result['settings']['batch']}"
        rows.append(
            (
                f"against the autoregressive twin on {skill} ({result['settings']['note']})",
                f"{speed}, {many}; exact {shares[0]} and {shares[1]}",
            )
        )
    return rows


def canvases_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    records, rows = result["records"], []
    fixed = records["fixed"]
    for kind, name in (("variable", "variable length"), ("fast", "`--fast`")):
        one = records[kind]
        what = f"{name} against a fixed canvas of {result['settings']['length']}, {fixed['count']} skill problems"
        exact = f"{one['exact_match']:.1%} exact against {fixed['exact_match']:.1%} (p = {one['p_value']:.2f})"
        rows.append((what, f"{one['times_fewer_positions']:.0f}x fewer positions; {exact}"))
    return rows


def lora_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    settings, learnt, memory = result["settings"], result["learnt"], result["memory"]
    whole = memory["all weights"]["training_bytes"]
    parts = ", ".join(f"{name} {one['training_bytes'] / whole:.2f}" for name, one in list(memory.items())[1:])
    rows = [(f"memory of training `{settings['size']}`, as a part of what all weights take", parts)]
    if "constant" not in result:  # exact match says nothing beside what one answer to all would get
        return rows
    what = f"fine-tuning `{settings['start']}` on {settings['skill']}, level {settings['level']}: exact match"
    matches = ", ".join(f"{name} {one['exact_match']['share']:.0%}" for name, one in learnt.items())
    before = f"{result['before']['share']:.0%} before, {result['constant']:.0%} by one answer to all"
    return [(f"{what}, rank {settings['rank']}", f"{before}; {matches}"), *rows]


def load_8b_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    measured = result["measured"]
    peak, over = measured["peak_bytes"] / 2**30, measured["over_weights_bytes"] / 2**30
    size, tokens = result["settings"]["size"], result["settings"]["length"]
    what = f"{size} in bf16 from a published folder: peak of loading and a forward of {tokens} tokens"
    rows = [(what, f"{peak:.2f} GiB, of which {over:.2f} are not weights")]
    few = ", ".join(f"{bits} {one['peak_bytes'] / 2**30:.2f} GiB" for bits, one in result.get("quantised", {}).items())
    return [*rows, (f"{size}, the matrices of its blocks in few bits: the same peak", few)] if few else rows


def plan_memory_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    records = result["records"]
    what = f"peak memory that `illada plan` predicts of {len(records)} small configurations, against the measured one"
    return [(what, f"{result['largest_difference']:+.1%} at worst")]


def chaos_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    kills, damage = result["kills"], result["corruptions"]
    saving, wrong = kills["while a checkpoint was written"], kills["checkpoints that loaded wrong"]
    what = f"{kills['runs']} runs killed {kills['kills']} times, {saving} of them while a checkpoint was written"
    same = f"{kills['survived']} end with the weights of the undisturbed run, to the bit"
    damaged = f"{damage['total']} files of checkpoints and token shards damaged"
    return [
        (what, f"{same}; {wrong} checkpoints load wrong"),
        (damaged, f"{damage['refused_by_name']} refused by name, {damage['loaded']} loaded"),
    ]


def checkpoints_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for record in result["records"]:
        count = f"{record['processes']} process{'es' if record['processes'] > 1 else ''}"
        what = f"a checkpoint of {record['bytes'] / 1e9:.2f} GB written by {count} beside the training"
        rows.append((what, f"the step is held up for {record['blocked_part']['median']:.1%} of the writing"))
    return rows


def scoring_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"skills": "the skills", "arc_challenge": "ARC-Challenge", "mmlu_redux": "MMLU-Redux, letters, 5 examples"}
    rows = []
    for record in result["records"]:
        ratio, shared = record["times_as_fast"], record["shared"]["items_per_second"]
        what = f"confidence scores of {names[record['kind']]}, {record['answer_tokens']:.1f} tokens a candidate"
        times = f"{ratio['median']:.1f}x as many questions a second [{ratio['q1']:.1f}, {ratio['q3']:.1f}]"
        rows.append((what, f"{times} as a loop of single rows: {shared['median']:.1f}; the same scores"))
    return rows


def choices_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    most = result["settings"]["exact_tokens"]
    for kind, where in (("all", "eleven skills"), ("short", f"answers of at most {most} tokens")):
        rules = result["records"][kind]
        count = rules["confidence"]["count"]
        parts = [
            f"{rule} {one['share']:.1%} [{one['interval']['low']:.1%}, {one['interval']['high']:.1%}]"
            f" in {one['forwards']:.0f} forwards"
            for rule, one in rules.items()
        ]
        rows.append((f"right choices among four, {count:,} questions, {where}", "; ".join(parts)))
    return rows


PARTS: dict[str, dict[str, Callable[[dict[str, Any]], list[tuple[str, str]]]]] = {
    "Learning": {
        "demo": demo_rows,
        "base_bound": base_bound_rows,
        "styles": styles_rows,
        "lora": lora_rows,
        "train_step": train_step_rows,
    },
    "Writing": {
        "canvases": canvases_rows,
        "fast_generation": fast_generation_rows,
        "frontier": frontier_rows,
        "twin": twin_rows,
        "crowd": crowd_rows,
        "generate": generate_rows,
    },
    "Scoring": {"choices": choices_rows, "scoring": scoring_rows},
    "Large models, many processes": {
        "load_8b": load_8b_rows,
        "plan_memory": plan_memory_rows,
        "checkpoints": checkpoints_rows,
        "chaos": chaos_rows,
    },
}
"""What the README shows, in its order: title -> subject -> the rows of a result. Studies have tables of their own."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
