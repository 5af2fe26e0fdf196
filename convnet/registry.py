"""The types of layers, found by the names of the files in layers/, and the rates of each.

The directory is the registry: type=cost.logreg is layers/cost/logreg.py.
"""

import importlib
from functools import cache
from pathlib import Path

from convnet.cfg import Note, Section, Sections, nearest
from convnet.layer import Layer

HOME = Path(importlib.import_module("layers").__path__[0])


@cache
def types() -> list[str]:
    """Every word that may follow type=, from the names of the files in layers/."""
    files = (f.relative_to(HOME).with_suffix("") for f in HOME.rglob("[!_]*.py"))
    return sorted(".".join(f.parts) for f in files)


@cache
def layer_class(word: str) -> type[Layer]:
    """The Layer that the file of this type defines."""
    module = importlib.import_module("layers." + word)
    found = next(
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Layer) and c.__module__ == module.__name__
    )
    found.type = word
    return found


def rates_of(section: Section) -> dict[str, str]:
    """The rates that a section may have: lower case -> as spelt; {} for an unknown type."""
    word = section.get("type")
    return _spelt(word, True) if word in types() else {}


def keys_of(section: Section) -> dict[str, str]:
    """The keys that a section may have, as rates_of."""
    word = section.get("type")
    return _spelt(word) if word in types() else {}


@cache
def _spelt(word: str, rates: bool = False) -> dict[str, str]:
    """Lower case -> as spelt of the keys of a type, or only of its rates."""
    keys = layer_class(word).keys().values()
    return {k.name.lower(): k.name for k in keys if k.rate or not rates}


def with_rates(
    sections: Sections, params: Sections
) -> tuple[dict[str, Section], list[Note], list[Note]]:
    """The sections with the rates of the params file over their own; mistakes; remarks.

    A key in the params file that is no rate of its layer is a mistake. A section of it without a
    layer is remarked on only: several nets often share one params file.
    """
    merged, notes = {}, _unknown_defaults(sections, False) + _unknown_defaults(params, True)
    for name, section in sections.items():
        merged[name] = Section(name, section.where)
        merged[name].update(section)
        merged[name].inherited = set(section.inherited)
        rates, own = rates_of(section), params.get(name, {})
        merged[name].update({k: v for k, v in params.default.items() if k in rates})
        merged[name].update({k: v for k, v in own.items() if k in rates})
        for word, value in own.items():
            if word not in rates and word not in own.inherited and section.get("type") in types():
                notes.append(value.wrong(_no_rate(word, section["type"])))
    remarks = [
        section.wrong("the net has no layer of this name; ignored")
        for name, section in params.items()
        if name not in sections
    ]
    return merged, notes, remarks


def _no_rate(word: str, type: str) -> str:
    if word in _spelt(type) or word == "type":
        return "is no rate; it belongs in the layer definition"
    return f"type={type} has no such rate{nearest(word, _spelt(type, True).values())}"


def _unknown_defaults(sections: Sections, rates: bool) -> list[Note]:
    """A note for each key in [DEFAULT] that would mean nothing to any type of layer."""
    known = {k: v for word in types() for k, v in _spelt(word, rates).items()}
    old = {k.lower() for k in Layer.ignored} | ({"type"} if not rates else set())
    what = "rate" if rates else "key"
    return [
        value.wrong(f"no type of layer has such a {what}{nearest(word, known.values())}")
        for word, value in sections.default.items()
        if word not in known and word not in old
    ]
