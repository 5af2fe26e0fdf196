"""What others wrote is looked at before it is believed, and before memory is taken for it."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

SIDES = 32  # of an array; NumPy has had 64 since 2.0


class Refused(ValueError):
    """A file is not what it should be; the text says why, in words for its user."""


def shaped(values: np.ndarray, shape: Iterable, order: str = "C") -> np.ndarray:
    """Numbers of a file in the shape that it tells; Refused where they are not as many.

    An array without numbers comes as (0,), whatever the other sides.
    """
    sides = tuple(shape)
    said = "x".join(map(_said, sides[:8])) + ("x.." if len(sides) > 8 else "")
    if len(sides) > SIDES or not all(type(n) is int and n >= 0 for n in sides):
        raise Refused(f"of {said} cannot be")
    if math.prod(sides) != values.size:
        raise Refused(f"of {said or 'one'} holds {values.size} numbers")
    return values.reshape(sides if values.size else 0, order=order)


def _said(side: Any) -> str:
    """A side; of a tuple in tuples, which may be endless, its type."""
    return f"{side!s:.20}" if isinstance(side, int | float | str) else type(side).__name__
