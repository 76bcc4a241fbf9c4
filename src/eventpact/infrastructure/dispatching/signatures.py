"""Signatures of functions that a dispatcher is given, looked at before it calls them."""

import inspect
from collections.abc import Callable
from typing import Any


def is_generator(function: object) -> bool:
    """Return whether calling it would run nothing, because it is a generator, async or not."""
    return any(
        is_one(each)
        for each in (function, type(function).__call__)
        for is_one in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    )


def misfit(function: Callable[..., Any], wanted: str) -> str | None:
    """Return the signature of a function that does not take one argument, and why it does not; else None.

    Args:
        wanted: what it should take.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in callables do not tell
        return None
    try:
        signature.bind(object())
    except TypeError as error:
        return f"{signature}, which does not take one {wanted} ({error})"
    return None
