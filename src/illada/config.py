"""Configurations are frozen dataclasses; this turns them into JSON and back, and gives each a fingerprint.

Every key of the JSON must be a field of the dataclass: a misspelt option is an error, never a default.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

import cattrs
import cattrs.v
from cattrs.strategies import configure_tagged_union

T = TypeVar("T")


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_func(_is_literal, _one_of)
    converter.register_unstructure_hook(float, float)  # a field that holds 1 and one that holds 1.0 are equal
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    converter.register_unstructure_hook(Path, str)
    return converter


def _exactly(value: Any, kind: type[Any]) -> Any:
    """JSON's own types as they are: "false" is not a bool, nor 2.5 a count; a whole number will do for a float."""
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    raise ValueError(f"expected {kind.__name__}, got {value!r}")


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _one_of(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ValueError(f"must be one of {', '.join(map(str, get_args(kind)))}; got {value!r}")
    return value


def _reason(error: BaseException, kind: Any) -> str:
    """What a check said, in its own words."""
    return str(error) if isinstance(error, ValueError) else cattrs.v.format_exception(error, kind)


_CONVERTER = _converter()


def register_union(union: Any) -> None:
    """Let a field hold one of several dataclasses; the JSON names the class under the key `kind`."""
    configure_tagged_union(union, _CONVERTER, tag_name="kind")


def to_dict(config: object) -> dict[str, Any]:
    """The configuration as plain JSON types."""
    return cast(dict[str, Any], _CONVERTER.unstructure(config, unstructure_as=type(config)))


def from_dict(cls: type[T], values: Any) -> T:
    """Build a `cls` from plain JSON types.

    Raises:
        ValueError: a key that is no field, a missing key, a value of the wrong type or out of range.
    """
    if not isinstance(values, dict):
        raise ValueError(f"not a valid {cls.__name__}: expected an object, got {values!r:.80}")
    try:
        return _CONVERTER.structure(values, cls)
    except cattrs.BaseValidationError as error:
        reasons = "; ".join(cattrs.transform_error(error, path=cls.__name__, format_exception=_reason))
        raise ValueError(f"not a valid {cls.__name__}: {reasons}") from error


def to_json(config: object) -> str:
    """The configuration as JSON text, one field per line."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(cls: type[T], text: str) -> T:
    """Read what `to_json` wrote.

    Raises:
        ValueError: the text is no JSON, or its values do not make a `cls`.
    """
    return from_dict(cls, json.loads(text))


def merge(kind: type[T], config: T | None, options: Mapping[str, object]) -> T:
    """`config`, or else the defaults of the dataclass `kind`, with single fields replaced by name.

    Raises:
        ValueError: an option that is no field; the message lists those there are.
    """
    known = [field.name for field in fields(cast(Any, kind))]
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"there is no option {', '.join(unknown)}; there are: {', '.join(known)}")
    return cast(T, replace(cast(Any, config or kind()), **options))


def fingerprint(config: object) -> str:
    """The SHA-256 of the canonical JSON: equal exactly when every field is equal."""
    canonical = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
