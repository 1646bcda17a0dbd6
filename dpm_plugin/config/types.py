"""One configuration key, and its value read from YAML or the command line: type, choices and range."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from dpm_plugin.utils.text import short

# What PyYAML raises on a text that is no YAML, or whose explicit tag (!!int x, !!timestamp x) does not fit it.
YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
LARGEST = 2**63 - 1  # what torch and numpy take for an integer


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Args:
        default: value of a run that does not set the key.
        help: one line: meaning, unit, source.
        choices: allowed words (of a list: allowed items), or None for any of the right type.
        low, high: smallest and largest allowed number (inclusive), or None.
        kind: type, one of ``KINDS``; "" takes the type of ``default``.
    """

    default: Any
    help: str
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    kind: str = ""


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value):
    return isinstance(value, str)


def _list_of(check):
    return lambda value: isinstance(value, (list, tuple)) and all(map(check, value))


def _or_pair(check):
    return lambda value: check(value) or (_list_of(_whole)(value) and len(value) == 2)


#: kind -> (what a message calls it, test)
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "int": ("an integer", _whole),
    "float": ("a number", _number),
    "str": ("text", _text),
    "strs": ("a list of texts such as [a, b]", _list_of(_text)),
    "ints": ("a list of integers such as [1, 5]", _list_of(_whole)),
    "floats": ("a list of numbers such as [0.5, 0.5, 0.5]", _list_of(_number)),
    "float or None": ("a number or None", lambda value: value is None or _number(value)),
    "int or pair": ("an integer or a list of two", _or_pair(_whole)),
    "str or pair": ("text or a list of two integers", _or_pair(_text)),
}


def kind_of(key: Key) -> str:
    """Name in ``KINDS`` of a key's type: stated, or that of its default."""
    is_list = isinstance(key.default, (list, tuple))
    return key.kind or (f"{type(key.default[0]).__name__}s" if is_list else type(key.default).__name__)


def convert(key: Key, value: Any) -> Any:
    """``value``, as read from YAML or a text from the command line, as the type of ``key``, checked.

    Raises:
        ValueError: wrong type, choice or range; the message says what is expected and what was given.
    """
    kind, given = kind_of(key), value
    if isinstance(value, str) and kind != "str":
        value = _decode(value)
    if kind.startswith("str") and key.choices and not isinstance(value, (str, list, tuple)):
        # YAML 1.1 reads an unquoted off as False, and a Python literal may say None: both are words we use.
        word = "off" if value is False else "none" if value is None else value
        value = word if word in key.choices else value
    name, right_type = KINDS[kind]
    if not right_type(value):
        raise ValueError(f"expected {name}, got {short(given)}")
    for item in value if isinstance(value, (list, tuple)) else [value]:
        _check_item(key, item)
    if isinstance(value, (list, tuple)):
        return [float(item) for item in value] if kind == "floats" else list(value)
    return float(value) if kind.startswith("float") and value is not None else value


def _decode(text):
    """A command-line text, or a YAML text such as 1e-4 (YAML 1.1 sees no number in it), as a Python value."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the last two: nested too deeply
        pass
    try:
        return yaml.safe_load(text)
    except YAML_ERRORS:
        return text


def _check_item(key, item):
    if isinstance(item, str) and key.choices and item not in key.choices:
        raise ValueError(f"expected one of {', '.join(key.choices)}, got {short(item)}")
    if not _number(item):
        return
    if not -LARGEST <= item <= LARGEST:  # NaN and infinity too
        raise ValueError(f"expected a number between -{LARGEST:g} and {LARGEST:g}, got {short(item)}")
    if key.low is not None and item < key.low:
        raise ValueError(f"expected at least {key.low}, got {item!r}")
    if key.high is not None and item > key.high:
        raise ValueError(f"expected at most {key.high}, got {item!r}")
