"""Refusing arguments: one wording for what every constructor and builder has to check."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from correction_graphs.errors import SettingsError


def expect(name: str, value: object, allowed: Mapping[Any, Any] | tuple[Any, ...], *, also: str = "") -> None:
    """Raise unless an argument is one of the values it may have.

    Raises:
        SettingsError: Names the argument, its value, and the values it may have.
    """
    if value not in tuple(allowed):  # a mapping would want it hashable
        raise SettingsError(f"`{name}` is {value!r}; it is one of {', '.join(map(repr, allowed))}{also}")


def whole_number(name: str, value: Any, least: int, what: str, *, most: int | None = None) -> None:
    """Raise unless an argument is a whole number in its range.

    Args:
        name: The argument.
        value: What was given.
        least: The lowest it may be.
        what: What it is, such as "the number of revisions".
        most: The highest it may be; None for no limit.

    Raises:
        SettingsError: Names the argument, its value, and what it may be.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)  # those of NumPy, too
    if not (whole and least <= value and (most is None or value <= most)):
        span = f"{least} or more" if most is None else f"from {least} to {most}"
        raise SettingsError(f"`{name}` is {value!r}; give {what}, {span}")
