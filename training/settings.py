"""Settings from plain values and back: keyword-only dataclasses, filled by name, typed by their fields."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from crossmodal.errors import TrainingError, unknown

T = TypeVar("T")

_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def from_plain(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make a dataclass from plain values, those of its fields that are dataclasses likewise.

    :param where: the path of keys that leads to ``values``, for messages.
    :raises TrainingError: for a key that is not known, or a value of another type than its field.
    """
    hints = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in hints:
            raise TrainingError(unknown("key in the recipe", prefix + name, [prefix + key for key in hints]))
    try:
        return kind(**{name: _value(hints[name], value, prefix + name) for name, value in values.items()})
    except TrainingError:
        raise
    except ValueError as error:  # what a dataclass says of its own values
        raise TrainingError(f"{where or 'the recipe'}: {error}") from error


def to_plain(settings: Any) -> dict[str, Any]:
    """Give settings as plain values for TOML and JSON; None is left out, for TOML has no word for it."""
    plain: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            plain[field.name] = to_plain(value)
        elif value is not None:
            plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain


def flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each value of nested settings under its path of keys.

    >>> list(flat({"run": {"epochs": 3}, "note": "x"}))
    [('run.epochs', 3), ('note', 'x')]
    """
    for name, value in plain.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def parse_value(kind: type, path: str, text: str) -> Any:
    """Read what was written for one key of a settings dataclass, by the type of its field.

    :param path: the keys that lead to it, joined by dots.
    :raises TrainingError: for a key that is not known, or a text that is no such value.
    """
    hint = _hint_at(kind, path)
    if _is_optional(hint):
        if text.lower() == "none":
            return None
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        parts = [part.strip().strip("'\"") for part in text.strip("[]").split(",")]
        return [_parsed(get_args(hint)[0], part, path) for part in parts if part]
    return _parsed(hint, text, path)


def _hint_at(kind: type, path: str) -> Any:
    hint: Any = kind
    for name in path.split("."):
        hints = get_type_hints(hint) if is_dataclass(hint) else {}
        if name not in hints:
            raise TrainingError(unknown("key in the recipe", path, _paths(kind)))
        hint = hints[name]
    if is_dataclass(hint):
        raise TrainingError(
            f"{path} is a table of the recipe; set one of its keys: {', '.join(_paths(hint, path))}"
        )
    return hint


def _paths(kind: Any, prefix: str = "") -> list[str]:
    """List the paths of all values of a settings dataclass."""
    out = []
    for name, hint in get_type_hints(kind).items():
        path = f"{prefix}.{name}" if prefix else name
        out += _paths(hint, path) if is_dataclass(hint) else [path]
    return out


def _parsed(hint: Any, text: str, path: str) -> Any:
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint in (int, float):
            return hint(text)
    except (KeyError, ValueError):
        raise _mistyped(path, text, hint) from None
    return text


def _value(hint: Any, value: Any, path: str) -> Any:
    """Check a value against the type of its field; a whole number will do for any number."""
    if is_dataclass(hint):
        if isinstance(value, Mapping):
            return from_plain(hint, value, path)  # type: ignore[arg-type]  # a class, as is_dataclass says
        raise TrainingError(f"{path} is a table of the recipe, got {value!r}; write [{path}]")
    if _is_optional(hint):
        if value is None:
            return None
        hint = next(part for part in get_args(hint) if part is not type(None))
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise TrainingError(unknown(path, str(value), get_args(hint)))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TrainingError(f"{path} is a list, got {value!r}; write {path} = [...]")
        return tuple(_value(get_args(hint)[0], part, path) for part in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise _mistyped(path, value, hint)
    return value


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _mistyped(path: str, value: object, hint: Any) -> TrainingError:
    return TrainingError(f"{path} is {_TYPES.get(hint, hint)}, got {value!r}")
