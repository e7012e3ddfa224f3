"""Reading third-party JSON: whatever is wrong with it is one error in one line, which shows none of it unescaped."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tapct.errors import RecordError
from tapct.records.types import shown

_Model = TypeVar("_Model", bound=BaseModel)


def parsed(text: str) -> dict[str, Any]:
    """Returns the object that a JSON text holds.

    Raises:
        ValueError: If it is not JSON (as its standard has it: NaN and infinity are none), holds no object, has a key
            twice in one object, is nested too deeply, or a number in it is too long.
    """
    try:
        content = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{error}. It may be truncated; run the experiment again") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}")
    return content


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not a number that JSON has")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)!r} is there twice in one object")
    return found


def first_fault(error: ValidationError) -> str:
    """Returns the first of the faults that pydantic found, where it is, and how many more there are."""
    faults = error.errors(include_url=False, include_context=False)
    where = ".".join(shown(str(part)) for part in faults[0]["loc"])
    message = shown(faults[0]["msg"].removeprefix("Value error, "), 300)
    value = "" if isinstance(faults[0]["input"], dict | list | tuple | BaseModel) else _value(faults[0]["input"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {message}{value}{more}" if where else f"{message}{more}"


def _value(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return ""
    return f", not {shown(repr(value), 60)}"


def checked(make: Callable[..., _Model], content: dict[str, Any], what: str) -> _Model:
    """Returns a part of a record of what is to be recorded.

    Args:
        make: The part's class.
        content: What it is made of.
        what: What it is of, for the error.

    Raises:
        RecordError: If a record could not hold it, with the first fault.
    """
    try:
        return make(**content)
    except ValidationError as error:
        raise RecordError(f"a record cannot hold what {what} says of itself: {first_fault(error)}") from error
