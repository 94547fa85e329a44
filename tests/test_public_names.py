import importlib
import subprocess
import sys

import pytest

import illada

IMPORT = "import sys, illada; print(sorted(name for name in sys.modules if name in ('torch', 'numpy', 'tokenizers')))"


@pytest.mark.parametrize("name", illada.__all__)
def test_every_public_name_is_there(name):
    assert getattr(illada, name) is not None


@pytest.mark.parametrize("name", sorted(illada._HOME))
def test_a_public_name_is_the_one_of_its_home(name):
    assert name in illada.__all__
    assert getattr(illada, name) is getattr(importlib.import_module(illada._HOME[name]), name)


def test_all_is_sorted_and_complete():
    assert list(illada.__all__) == sorted(illada.__all__)
    assert set(illada.__all__) == {*illada._HOME, "__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'illada' has no attribute 'lode'"):
        illada.lode  # noqa: B018  # the access is the test


def test_the_version_is_a_version():
    assert [part.isdigit() for part in illada.__version__.split(".")[:2]] == [True, True]


def test_importing_illada_alone_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_from_import_works_for_a_lazy_name():
    done = subprocess.run(
        [sys.executable, "-c", "from illada import ModelConfig; print(ModelConfig().layers)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(illada.ModelConfig().layers)
