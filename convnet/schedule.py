"""Learning rates that change with the progress of a run (cuda-convnet2's epsW, epsB).

    0.01                                       constant; so is const[base=0.01]
    linear[base=0.01;tgtFactor=10]             straight down to base/tgtFactor
    exp[base=0.01;tgtFactor=10]                base * tgtFactor^(-progress)
    dexp[base=0.01;tgtFactor=10;numSteps=3]    the same in numSteps equal stairs

Progress goes from 0 to 1 over all the batches of --epochs.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

PARAMETERS = {
    "const": ("base",),
    "linear": ("base", "tgtFactor"),
    "exp": ("base", "tgtFactor"),
    "dexp": ("base", "tgtFactor", "numSteps"),
}


@dataclass(frozen=True)
class Schedule:
    """A rate as a function of progress; `base` > 0 tells whether there is learning at all."""

    kind: str
    base: float
    tgtFactor: float = 1.0
    numSteps: int = 1

    def __call__(self, progress: float) -> float:
        """The rate at this progress, clipped to 0..1; a stair's edge has the rate before it."""
        p, b, t, n = min(max(progress, 0.0), 1.0), self.base, self.tgtFactor, self.numSteps
        if self.kind == "linear":
            return b * (1 - p) + b / t * p
        if self.kind == "exp":
            return b * t**-p
        if self.kind == "dexp":
            stair = next(i for i in range(n) if p <= (i + 1) / n)
            return b * t ** -(stair / (n - 1) if n > 1 else 1)
        return b


def schedule(text: str) -> Schedule:
    """Read a rate: a number or one of the forms above. ValueError("why") for anything else."""
    found = re.fullmatch(r"\s*([A-Za-z]+)\s*\[([^\]]*)\]\s*", text)
    if not found:
        return Schedule("const", _number("base", text, float))
    kind = found[1].lower()
    if kind not in PARAMETERS:
        raise ValueError(f"no schedule {found[1]!r}; there are {', '.join(PARAMETERS)}")
    spelt = {name.lower(): name for name in PARAMETERS[kind]}
    given = {}
    for part in found[2].split(";"):
        name, eq, value = (word.strip() for word in part.partition("="))
        if not eq or name.lower() not in spelt:
            form = ";".join(f"{n}=" for n in PARAMETERS[kind])
            raise ValueError(f"{kind} takes {kind}[{form}], not {part.strip()!r}")
        name = spelt[name.lower()]
        given[name] = _number(name, value, int if name == "numSteps" else float)
    if missing := [name for name in PARAMETERS[kind] if name not in given]:
        raise ValueError(f"{kind} also needs {', '.join(missing)}")
    return Schedule(kind, **given)


def _number(name: str, text: str, read: Callable[[str], float]) -> float:
    try:
        got = read(text)
    except ValueError:
        kind = "a whole number" if read is int else "a number"
        hint = "" if name != "base" else f" or one of {', '.join(PARAMETERS)}[...]"
        raise ValueError(f"{name} must be {kind}{hint}, not {text.strip()!r}") from None
    if not math.isfinite(got) or got < 0 or (name != "base" and got == 0):
        raise ValueError(f"{name} must be {'0 or more' if name == 'base' else 'above 0'}")
    return got
