"""Learning rates that change with the progress of a run (cuda-convnet2's epsW, epsB).

    0.01                                       constant; so is const[base=0.01]
    linear[base=0.01;tgtFactor=10]             straight down to base/tgtFactor
    exp[base=0.01;tgtFactor=10]                base * tgtFactor^(-progress)
    dexp[base=0.01;tgtFactor=10;numSteps=3]    the same in numSteps equal stairs

Progress goes from 0 to 1 over all the batches of --epochs.
"""

import math
import re
from dataclasses import dataclass

from convnet.cfg import nearest, short

LARGEST = 1e9  # more than any rate that anybody meant
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
            stair = max(math.ceil(p * n) - 1, 0)
            stair -= stair > 0 and p <= stair / n  # p * n may be rounded up over the edge
            stair += p > (stair + 1) / n
            return b * t ** -(stair / (n - 1) if n > 1 else 1)
        return b


def schedule(text: str) -> Schedule:
    """Read a rate: a number or one of the forms above. ValueError("why") for anything else."""
    found = re.fullmatch(r"\s*([A-Za-z]+)\s*\[([^\]]*)\]\s*", text)
    if not found:
        return Schedule("const", _base(text))
    kind = found[1].lower()
    if kind not in PARAMETERS:
        known = nearest(kind, PARAMETERS) or f"; there are {', '.join(PARAMETERS)}"
        raise ValueError(f"no schedule is called {short(found[1])!r}{known}")
    spelt = {name.lower(): name for name in PARAMETERS[kind]}
    given = {}
    for part in found[2].split(";"):
        name, eq, value = (word.strip() for word in part.partition("="))
        if not eq or name.lower() not in spelt or spelt[name.lower()] in given:
            form = ";".join(f"{n}=" for n in PARAMETERS[kind])
            raise ValueError(f"{kind} is written {kind}[{form}]; got {short(part)!r}")
        name = spelt[name.lower()]
        given[name] = _number(name, value)
    if missing := [name for name in PARAMETERS[kind] if name not in given]:
        raise ValueError(f"{kind} also needs {', '.join(missing)}")
    made = Schedule(kind, **given)
    try:
        finite = made(1.0) <= LARGEST
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"the rate must be at most {LARGEST:g}; base/tgtFactor is more")
    return made


def _base(text: str) -> float:
    """A rate that is just a number."""
    try:
        got = float(text)
    except ValueError:
        forms = ", ".join(f"{kind}[...]" for kind in PARAMETERS)
        why = f"must be a number, or one of {forms}"
        if re.fullmatch(r"\s*\w+\s*\(.*", text):
            why = "a schedule has square brackets: dexp[base=0.01;tgtFactor=100;numSteps=3]"
        raise ValueError(why if text else f"is empty; {why}") from None
    if not 0 <= got <= LARGEST:
        raise ValueError(f"must be from 0 to {LARGEST:g}")
    return got


def _number(name: str, text: str) -> float:
    """The value of one parameter of a schedule."""
    whole = name == "numSteps"
    try:
        got = int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind}, not {short(text)!r}") from None
    if not 0 <= got <= LARGEST or (name != "base" and got == 0):
        least = "from 0 to" if name == "base" else "above 0 and at most"
        raise ValueError(f"{name} must be {least} {LARGEST:g}, not {short(text)}")
    return got
