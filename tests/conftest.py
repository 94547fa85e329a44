"""Run-time shape checks for the whole suite: every annotated call in illada is checked against its jaxtyping names."""

from jaxtyping import install_import_hook

install_import_hook("illada", "beartype.beartype")
