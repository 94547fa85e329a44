"""What the pages of results have in common: their looks, text that stays text, and tables."""

import html
from collections.abc import Sequence

STYLE = """
:root { --ink: #1c1e21; --soft: #6a7077; --line: #dcdfe3; --paper: #fff; --box: #f5f6f8; --mark: #2563b0;
  --paper-mark: #c2410c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9aa1a9; --line: #383d43; --paper: #17191c; --box: #202327; --mark: #7fb2f0;
    --paper-mark: #f0a370 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { color: var(--soft); font-weight: 500 }
pre { color: var(--ink); background: var(--box); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; margin: .3rem 0 }
details { margin: .4rem 0 } summary { cursor: pointer }
.soft { color: var(--soft) } .right { color: #15803d } .wrong { color: #b91c1c }
.wide { overflow-x: auto } .wide td, .wide th { white-space: nowrap } .groups { width: auto; margin: .3rem 0 }
svg { width: 100%; height: auto; margin: 1.5rem 0 .5rem }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.axis { stroke: var(--line) } .zero { stroke: var(--soft) }
.whisker { stroke: var(--mark); stroke-width: 2 } .dot { fill: var(--mark) }
.paper { fill: var(--paper-mark) } svg .faint { fill: var(--soft) }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page that needs nothing else."""
    return "".join(
        [
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escaped(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def table(names: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table of texts."""
    head = "".join(f"<th>{escaped(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def escaped(value: str) -> str:
    """Text that the browser reads as text, whatever it holds."""
    return html.escape(value, quote=True)
