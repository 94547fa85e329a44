"""`import illada` costs nothing, and our models are known to transformers whichever is imported first."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("transformers", reason="the extra transformers is not installed")


def run(code: str) -> list[str]:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_imports_neither_library():
    code = "import sys, illada; print(*[name for name in ('torch', 'transformers', 'logging') if name in sys.modules])"
    assert run(code) == []


KNOWN = """
print(CONFIG_MAPPING['illada'].__name__, CONFIG_MAPPING['llada'].__name__, CONFIG_MAPPING['Dream'].__name__)
print(AutoModelForMaskedLM._model_mapping[CONFIG_MAPPING['illada']].__name__)
"""
THEIRS = """
from transformers import AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
"""
NAMES = ["IlladaConfig", "LladaConfig", "DreamConfig", "IlladaForMaskedLM"]


@pytest.mark.parametrize("code", [f"import illada{THEIRS}{KNOWN}", f"{THEIRS}import illada{KNOWN}"])
def test_whichever_is_imported_first(code):
    assert run(code) == NAMES


def test_nothing_of_the_hook_stays_on_the_modules_that_it_waited_for():
    code = f"""
import illada{THEIRS}
import sys
for name in ("configuration_auto", "modeling_auto"):
    module = sys.modules["transformers.models.auto." + name]
    print(type(module.__loader__).__name__, type(module.__spec__.loader).__name__)
"""
    assert run(code) == ["SourceFileLoader"] * 4


def test_a_library_that_we_do_not_fit_stays_usable():
    code = f"""
import illada, sys
sys.modules["illada.transformers.configuration"] = sys.modules["illada.transformers.modeling"] = None{THEIRS}
print("bert" in CONFIG_MAPPING, "illada" in CONFIG_MAPPING)
"""
    assert run(code) == ["True", "False"]
