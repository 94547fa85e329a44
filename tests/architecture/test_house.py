"""The rules of the house, checked by reading the source: what imports what, how long things are, what is not there."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
TESTS_PER_SOURCE = 0.8

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function


def module_name(path: Path) -> str:
    return str(path.relative_to(ROOT / "src").with_suffix("")).replace("/", ".")


BY_MODULE = pytest.mark.parametrize("path", SOURCES, ids=module_name)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def lines_of(paths) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Classes and functions whose names, and those of the classes around them, have no leading underscore."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


def is_overload(node: Definition) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


def test_there_is_something_to_check():
    assert len(SOURCES) > 30


# --- who imports whom ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed")
def test_the_import_contracts_are_kept():
    call = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@BY_MODULE
def test_names_say_what_is_inside(path):
    assert not {path.stem, path.parent.name} & {"utils", "util", "common", "helpers", "helper", "base", "misc"}


@BY_MODULE
def test_annotations_are_real(path):
    futures = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
    assert not [node for node in futures if node.module == "__future__"]


# --- length -------------------------------------------------------------------------------------------------------


@BY_MODULE
def test_files_are_short(path):
    assert lines_of([path]) <= LONGEST_FILE


@BY_MODULE
def test_functions_are_short(path):
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, Function)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


# --- documentation ------------------------------------------------------------------------------------------------


@BY_MODULE
def test_all_that_is_public_is_documented(path):
    tree = tree_of(path)
    named = [(name, node) for name, node in public_definitions(tree.body) if not is_overload(node)]
    silent = [name for name, node in named if not ast.get_docstring(node)]
    assert silent == []
    assert ast.get_docstring(tree)


def test_the_search_for_public_names_finds_methods():
    tree = ast.parse("class A:\n def b(self): ...\n def _c(self): ...\nclass _D:\n def e(self): ...\ndef f(): ...")
    assert [name for name, _ in public_definitions(tree.body)] == ["A", "A.b", "f"]


# --- nothing that runs what it reads ------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "os.system", "np.load"}
RUNS_PROGRAMS = {"illada.evaluate.sandbox.launcher": ["exec", "compile"]}
"""The one module whose purpose it is, in a process of its own that has given up all rights but to compute."""


def forbidden(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").partition(".")[0] in FORBIDDEN_MODULES else []
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            found.append(ast.unparse(node.func))
    return found


@BY_MODULE
def test_no_file_that_is_read_can_run_code(path):
    assert forbidden(tree_of(path)) == RUNS_PROGRAMS.get(module_name(path), [])


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("from torch import load", ["torch.load"]),
        ("import torch\ntorch.load(path)", ["torch.load"]),
        ("eval(text)", ["eval"]),
        ("model.eval()\nsafetensors.torch.load(data)\nre.compile(text)", []),
    ],
)
def test_the_search_for_it_finds_it(code, found):
    assert forbidden(ast.parse(code)) == found


# --- tests, and what else is in the repository --------------------------------------------------------------------


def test_there_is_nearly_as_much_test_as_source():
    tests = lines_of((ROOT / "tests").rglob("*.py"))
    assert tests >= TESTS_PER_SOURCE * lines_of(SOURCES)


def tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every file that git tracks and that is UTF-8 text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.is_file():
            data = path.read_bytes()
            if b"\0" not in data:
                yield path, data.decode("utf-8", errors="replace")


MACHINE_PATH = re.compile(r"(?<![\w.:/}$-])/(?:root|work|workspace|home/\w+|Users/\w+|mnt/\w+|data/\w+|tmp/\w+)(?=/)")


@pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a checkout, or git is not installed"
)
def test_no_file_names_a_place_on_somebodys_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path, text in tracked_texts()
        if path != Path(__file__)
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('path = "/home/ada/illada/src"', True),
        ("see /root/runs/tiny", True),
        ("cd /tmp/abc/def", True),
        ("the folder data/work/x, runs/root/y and src/illada", False),
        ("https://example.org/home/page/x", False),
        ("ILLADA_CACHE=/a/b", False),
    ],
)
def test_the_search_for_places_finds_them(line, found):
    assert bool(MACHINE_PATH.search(line)) == found
