"""A study as one HTML page that needs nothing else: the sentences first, then figures, tables and settings."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from illada.compare.figures import Bar, Curve, Point, bars, curves, forest
from illada.compare.verdict import gap_told, is_share, p_told, told
from illada.evaluate.markup import document, escaped, table

Results = Mapping[str, Any]

_SIDE_NOTES = ("forwards", "positions", "mflops")
_SIGNS = {"shown": "+", "contradicted": "-", "open": "?", "at the end of the scale": "."}


def report(results: Results, *, command: str) -> str:
    """The whole page, from what `illada.compare.summary.summarize` gives."""
    return document(
        f"{results['study']}: {results['question']}",
        [
            f"<pre>{escaped(command)}</pre>",
            f"<p>{escaped(results['note'])}</p>" if results["note"] else "",
            "<h2>What the data allow to say</h2>",
            claims_figure(results),
            _sentences(results),
            "<p class='soft'>Differences are paired by seed. Intervals are 95 %, Student's t over ",
            f"{len(results['seeds'])} seeds: they hold the chance of start, order and noise, not that of the ",
            "questions, which are the same for all. p-values are corrected together (Holm).</p>",
            "<h2>Answers</h2>",
            *_answers(results),
            *_looks(results),
            "<h2>Learning curves</h2>",
            *_learning(results),
            *_axis(results),
            "<h2>Likelihood</h2>",
            _likelihood(results),
            "<h2>Cost</h2>",
            _costs(results),
            "<h2>Arms</h2>",
            _arms(results),
            "<h2>Learning rates</h2>",
            _sweep(results),
            _fits(results),
            "<h2>All differences from the first arm</h2>",
            _differences(results),
            "<h2>Settings</h2><details><summary>the plan that the arms change</summary>",
            f"<pre>{escaped(json.dumps(results['plan'], indent=2))}</pre></details>",
        ],
    )


def claims_figure(results: Results) -> str:
    """The claims about shares as differences, for the claim to the right."""
    rows = [
        Bar(
            name=f"{claim['measure']}: {claim['better']} - {_worse(claim)}",
            value=claim["difference"]["value"],
            low=claim["difference"]["interval"]["low"],
            high=claim["difference"]["interval"]["high"],
        )
        for claim in results["claims"]
        if is_share(claim["measure"])
    ]
    title = "Differences in points, 95 % over seeds: right of 0 speaks for the claim"
    return forest(rows, title=title) if rows else ""


def _worse(claim: Results) -> str:
    """What stands on the other side; the same arm, where it was looked at earlier or measured otherwise."""
    if claim["better"] != claim["worse"]:
        return str(claim["worse"])
    if claim["worse_look"] is not None:
        return f"itself after {100 * claim['worse_look']:.0f} % of the stage"
    return str(claim["worse_measure"])


def _sentences(results: Results) -> str:
    rows = [f"<li>{escaped(claim['sentence'])}</li>" for claim in results["claims"]]
    return f"<ul>{''.join(rows)}</ul>" if rows else "<p>No claim is tested here: the numbers are below.</p>"


def final(arm: Results) -> list[dict[str, Any]]:
    """What was measured at the end."""
    last = max(row["at"] for row in arm["measures"]) if arm["measures"] else 0
    return [row for row in arm["measures"] if row["at"] == last]


def _names(results: Results, *, share: bool) -> list[str]:
    found = dict.fromkeys(row["measure"] for arm in results["arms"] for row in final(arm))
    return [name for name in found if is_share(name) == share]


def _answers(results: Results) -> list[str]:
    """One figure per measure: arms as rows."""
    found = []
    for name in _names(results, share=True):
        rows = [
            Bar(
                name=arm["name"],
                value=row["value"],
                low=row["interval"]["low"],
                high=row["interval"]["high"],
                dots=tuple(row["values"]),
            )
            for arm in results["arms"]
            for row in final(arm)
            if row["measure"] == name
        ]
        found.append(bars(rows, title=name, share=True))
    return found


def _looks(results: Results) -> list[str]:
    """Answers over the stage, where they were asked more than once."""
    found = []
    names = dict.fromkeys(
        row["measure"] for arm in results["arms"] for row in arm["measures"] if is_share(row["measure"])
    )
    for name in names:
        some = []
        for arm in results["arms"]:
            rows = [row for row in arm["measures"] if row["measure"] == name]
            if len(rows) > 1:
                points = tuple(
                    Point(
                        x=row["at"] * results["axis_end"],
                        y=row["value"],
                        low=row["interval"]["low"],
                        high=row["interval"]["high"],
                    )
                    for row in rows
                )
                some.append(Curve(name=arm["name"], points=points))
        if some:
            found.append(
                curves(some, title=f"{name} on the way", across_is=results["axis"] or "share of the stage", share=True)
            )
    return ["<h2>On the way</h2>", *found] if found else []


def _learning(results: Results) -> list[str]:
    """Held-out loss over tokens, for every stage."""
    found = []
    for stage in dict.fromkeys(curve["stage"] for curve in results["curves"]):
        some = [
            Curve(
                name=curve["arm"],
                points=tuple(
                    Point(
                        x=point["tokens"],
                        y=point["value"],
                        low=point["interval"]["low"],
                        high=point["interval"]["high"],
                    )
                    for point in curve["points"][1:]
                    if point["tokens"] is not None
                ),
            )
            for curve in results["curves"]
            if curve["stage"] == stage
        ]
        title = f"{stage}: held-out nats per token; a bound for diffusion, the value for autoregression"
        found.append(curves([one for one in some if one.points], title=title, across_is="tokens", share=False))
    return found


def _axis(results: Results) -> list[str]:
    """Arms of a series over the study's axis."""
    placed = [arm for arm in results["arms"] if arm["at"] is not None]
    found = []
    for name in dict.fromkeys(row["measure"] for arm in placed for row in final(arm)):
        some = []
        for series in dict.fromkeys(arm["series"] for arm in placed):
            points = sorted(
                (arm["at"], row["value"], row["interval"]["low"], row["interval"]["high"])
                for arm in placed
                if arm["series"] == series
                for row in final(arm)
                if row["measure"] == name
            )
            some.append(Curve(name=series, points=tuple(Point(x=x, y=y, low=a, high=b) for x, y, a, b in points)))
        if not name.endswith("error"):
            found.append(curves(some, title=name, across_is=results["axis"], share=is_share(name), logarithmic=True))
    return found


def _likelihood(results: Results) -> str:
    """Nats, the bound with its Monte-Carlo error beside the exact value."""
    rows = []
    for arm in results["arms"]:
        known = {row["measure"]: row for row in final(arm)}
        for name, row in known.items():
            if name.startswith("nats") and not name.endswith("error"):
                error = known.get(f"{name}, error", {"value": 0.0})["value"]
                what = f"at most, ± {error:.4f} (masks)" if error else "exact"
                low, high = row["interval"]["low"], row["interval"]["high"]
                rows.append([arm["name"], name, f"{row['value']:.4f}", f"{low:.4f} to {high:.4f}", what])
    if not rows:
        return "<p>Not measured.</p>"
    note = (
        "<p class='soft'>A bound lies above the value that it bounds by an unknown amount: a diffusion model with a "
        "higher number than its twin need not be worse.</p>"
    )
    return _wide(table(("arm", "measure", "nats", "95 % over seeds", "kind"), rows)) + note


def _costs(results: Results) -> str:
    """What an answer takes."""
    rows = []
    for arm in results["arms"]:
        known = {row["measure"].partition("/")[0]: row["value"] for row in final(arm) if "/answer" in row["measure"]}
        if known:
            rows.append([arm["name"], *(f"{known.get(name, 0):,.1f}" for name in _SIDE_NOTES)])
    if not rows:
        return "<p>Not measured.</p>"
    return _wide(table(("arm", "forwards per answer", "positions per answer", "MFLOPs per answer"), rows))


def _arms(results: Results) -> str:
    rows = [
        [
            arm["name"],
            arm["budget"],
            f"{arm['parameters']:,}",
            ", ".join(f"{steps:,}" for steps in arm["steps"].values()),
            ", ".join(f"{tokens / 1e6:.2f} M" for tokens in arm["tokens"].values()),
            ", ".join(f"{flops / 1e12:.2f} T" for flops in arm["flops"].values()),
            f"{arm['rate']:g}",
            ", ".join(arm["differs_from_first_in"]) or "nothing",
        ]
        for arm in results["arms"]
    ]
    names = ("arm", "equal", "parameters", "steps", "tokens", "FLOPs", "rate", "differs from the first arm in")
    return _wide(table(names, rows))


def _sweep(results: Results) -> str:
    """Every rate that was tried, with the loss that decided."""
    if not results["sweep"]:
        return "<p>One rate for all.</p>"
    rates = sorted({row["rate"] for row in results["sweep"]})
    chosen = {arm["name"]: arm["rate"] for arm in results["arms"]}
    rows = []
    for arm in dict.fromkeys(row["arm"] for row in results["sweep"]):
        loss = {row["rate"]: row["held_out"] for row in results["sweep"] if row["arm"] == arm}
        rows.append([arm, *(f"{loss[rate]:.4f}" for rate in rates), f"{chosen[arm]:g}"])
    return _wide(table(("held-out nats per token at rate", *(f"{rate:g}" for rate in rates), "taken"), rows))


def _fits(results: Results) -> str:
    rows = [
        [
            fit["series"],
            f"{fit['slope']:.4f}",
            f"{fit['interval']['low']:.4f} to {fit['interval']['high']:.4f}",
            f"{fit['count']}",
        ]
        for fit in results["fits"]
    ]
    if not rows:
        return ""
    names = ("loss ~ FLOPs to the power of", "slope", "95 %", "runs")
    return f"<h2>Scaling</h2>{_wide(table(names, rows))}"


def _differences(results: Results) -> str:
    rows = [
        [
            f"{row['second']}: {row['measure']}",
            gap_told(row["measure"], row["value"]),
            " to ".join(gap_told(row["measure"], row["interval"][end]) for end in ("low", "high")),
            "" if row["effect"] is None else f"{row['effect']:.1f}",
            p_told(row["corrected_p"]),
        ]
        for row in results["differences"]
    ]
    if not rows:
        return "<p>There is one arm alone.</p>"
    return _wide(table(("first arm above", "by", "95 %", "Hedges' g", "corrected"), rows))


def _wide(inside: str) -> str:
    return f"<div class='wide'>{inside}</div>"


def card(results: Results) -> list[tuple[str, str]]:
    """(arm and measure, mean with interval) of every share, for a terminal."""
    return [
        (f"{arm['name']}: {row['measure']}", f"{told(row['measure'], row['value'])}")
        for arm in results["arms"]
        for row in final(arm)
        if is_share(row["measure"])
    ]


def outcomes(claims: Sequence[Results]) -> str:
    """The claims in signs: + shown, - the opposite, ? open, . at the end of the scale."""
    return "".join(_SIGNS[claim["outcome"]] for claim in claims)
