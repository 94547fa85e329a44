"""Policies by their text: a name, and what differs from its defaults, as in `threshold,tau=0.8`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

PolicyT = TypeVar("PolicyT")


def read_policy(text: str, table: Mapping[str, type[PolicyT]], *, kind: str) -> PolicyT:
    """The policy that `text` describes.

    Args:
        text: `NAME` or `NAME,field=value,...`.
        table: the classes by name; frozen dataclasses whose fields are numbers.
        kind: what they are, for messages.

    Raises:
        ValueError: a name or field that there is not, or a value that is no number or out of range.
    """
    name, *options = text.split(",")
    if name not in table:
        raise ValueError(f"{kind} must be one of {', '.join(table)}; got {name!r}")
    types = _types(table[name])
    values = {}
    for option in options:
        key, found, value = option.partition("=")
        if not found or key not in types:
            known = f"has the options {', '.join(types)}" if types else "has no options"
            raise ValueError(f"{kind} {name} {known}; got {option!r}")
        try:
            values[key] = types[key](value)
        except ValueError:
            raise ValueError(f"{key} of {kind} {name} must be a number, got {value!r}") from None
    return table[name](**values)


def _types(policy: Any) -> dict[str, Any]:
    return {field.name: field.type for field in fields(policy)}
