"""What the documentation points at is there: pages, headings, code, flags, sizes."""

import contextlib
import importlib.util
import io
import re
import unicodedata
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from illada.cli.main import COMMANDS, main
from illada.model.accounting import count_parameters
from illada.model.config import NAMED_SIZES
from illada.sample import unmasking

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_NAME = re.compile(r"`(illada(?:\.\w+)+)")
FLAG = re.compile(r"--[a-z][a-z0-9.-]*")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page):
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """The ids of a page's headings, as the site makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    ascii_only = [unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode() for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in ascii_only}


def resolve(name):
    """Follow a dotted name through modules, then attributes; a dataclass field counts as an attribute."""
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    for part in rest:
        if part in _fields(found):
            found = found.__dataclass_fields__[part]
        elif isinstance(found, ModuleType) and part not in vars(found) and _is_module(f"{found.__name__}.{part}"):
            found = importlib.import_module(f"{found.__name__}.{part}")
        else:
            found = getattr(found, part)
    return found


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the name before the last dot is a module and no package
        return False


def _fields(found):
    return getattr(found, "__dataclass_fields__", {}) if isinstance(found, type) else {}


@each_page
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@each_page
def test_every_code_name_can_be_imported(page):
    for name in sorted(set(CODE_NAME.findall(prose(page)))):
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            pytest.fail(f"`{name}`: {error!r}")


def test_a_name_that_is_not_there_is_noticed():
    with pytest.raises(AttributeError):
        resolve("illada.diffusion.schedule.loss_wait")
    with pytest.raises(AttributeError):
        resolve("illada.no_such_room")


def test_the_navigation_lists_every_page_once():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": (\S+\.md)$", settings.partition("\nnav:\n")[2], re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_site_fetches_nothing_from_elsewhere():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "://" not in settings


# --- commands -----------------------------------------------------------------------------------------------------

RECIPES = ("tiny", "llada_8b", "illada_8b")
"""Between them they have every flag that a recipe can have."""


@cache
def help_of(*arguments):
    """The flags that `illada ARGUMENTS --help` shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*arguments, "--help"])
    return frozenset(FLAG.findall(shown.getvalue()))


def known_flags(command):
    if command == "lm-eval" and importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed: pip install illada[eval]")
    if command != "pretrain":
        return help_of(command)
    return frozenset().union(*(help_of(command, recipe) for recipe in RECIPES))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_names_only_flags_that_the_command_has(command):
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## illada {command}\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`(--[a-z][a-z0-9.-]*)`", section))
    assert documented
    assert documented <= known_flags(command)


@pytest.mark.parametrize("command", ["demo", "generate", "describe"])
def test_the_reference_names_all_flags_of_a_small_command(command):
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## illada {command}\n")[2].partition("\n## ")[0]
    flags = {flag for flag in help_of(command) if not flag.startswith("--no-") and flag != "--help"}
    assert flags <= set(FLAG.findall(section))


@each_page
def test_every_command_shown_uses_commands_and_flags_that_exist(page):
    for _, block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            shown = re.match(r"\$? ?illada (\w[\w-]*)(.*)", line)
            if shown is None or shown[1] == "COMMAND":
                continue
            command, rest = shown[1], shown[2].partition(" # ")[0]
            assert command in COMMANDS, line
            assert set(FLAG.findall(rest)) <= known_flags(command) | {"--help"}, line


# --- facts --------------------------------------------------------------------------------------------------------


def test_the_table_of_sizes_is_that_of_the_code():
    text = (DOCS / "concepts" / "model.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    table = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in NAMED_SIZES}
    assert list(table) == list(NAMED_SIZES)
    for name, config in NAMED_SIZES.items():
        count = count_parameters(config)
        before = (count.total, count.non_embedding, config.vocab_size, config.hidden_size, config.layers)
        after = (config.ffn_size, config.max_length)
        heads = f"{config.heads} / {config.kv_heads}"
        expected = [*(f"{value:,}" for value in before), heads, *(f"{value:,}" for value in after)]
        assert table[name] == expected


def test_the_policy_of_the_how_to_page_reveals_from_the_left():
    page = (DOCS / "how-to" / "new-unmasking-policy.md").read_text(encoding="utf-8")
    names = dict(vars(unmasking), UNMASKING={})
    for language, block in FENCE.findall(page):
        if language == "python":
            exec(block, names)  # the page's own code, in the module that it says it belongs to
    masked = torch.tensor([[True, False, True, True], [False, False, False, True]])
    block = unmasking.Block(
        masked=masked,
        settled=torch.zeros_like(masked),
        count=torch.tensor([2, 0]),
        confidence=torch.rand(2, 4),
        logits=torch.rand(4, 3),
        noise=lambda: torch.rand(2, 4),
    )
    revealed = names["UNMASKING"]["left_to_right"]().select(block)
    assert revealed.tolist() == [[True, False, True, False], [False] * 4]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_nothing_else_takes_the_place_of_a_page(page):
    assert not page.with_suffix(".html").exists(), "the site would leave this file out: give it a name of its own"
