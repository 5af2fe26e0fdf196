"""Write docs/api.md from the docstrings: python docs/make_api.py"""

import importlib
import inspect
import re
from pathlib import Path

PAGE = Path(__file__).with_name("api.md")
NAMES = [
    "convnet.Net",
    "convnet.multiview.Multiview",
    "convnet.multiview.plan",
    "convnet.source.Source",
    "convnet.geometry.field",
    "convnet.geometry.Field",
    "convnet.checkpoint.Checkpoint",
    "convnet.checkpoint.load",
    "convnet.checkpoint.save",
    "convnet.runfolder.find",
    "convnet.providers.DataOptions",
    "convnet.providers.Provider",
    "convnet.providers.provider_class",
    "convnet.layer.Layer",
]
HEAD = """# From Python

What is meant to be called from other programs, written by `python docs/make_api.py` from the
docstrings (a test compares). Arrays are NumPy's, images uint8 (H, W, C); how a net is used is in
the [README](../README.md#from-python), how a layer is written in
[CONTRIBUTING.md](../CONTRIBUTING.md).
"""


def page() -> str:
    """The text of the page."""
    return HEAD + "".join(_entry(name) for name in NAMES)


def _entry(name: str) -> str:
    module, _, word = name.rpartition(".")
    found = getattr(importlib.import_module(module), word)
    text = f"\n## {word}\n\n    from {module} import {word}\n\n"
    if inspect.isclass(found):
        if _own(found, "__init__"):
            text += f"`{word}{_signature(found)}`\n\n"
        return text + _doc(found) + "".join(_member(found, m) for m in vars(found))
    return text + f"`{word}{_signature(found)}`\n\n" + _doc(found)


def _member(cls: type, name: str) -> str:
    """A public method or property of its own."""
    found = inspect.getattr_static(cls, name)
    if name.startswith("_") or not _doc(found):
        return ""
    if isinstance(found, property):
        return f"\n**`.{name}`** {_doc(found)}"
    call = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    if not inspect.isfunction(call):
        return ""
    owner = cls.__name__ if call is not found else ""
    return f"\n**`{owner}.{name}{_signature(call)}`**\n\n{_doc(call)}"


def _own(cls: type, name: str) -> bool:
    return name in vars(cls)


def _signature(found) -> str:
    """As it is called, on one line."""
    parameters = [
        p.replace(annotation=p.empty)
        for p in inspect.signature(found).parameters.values()
        if p.name not in ("self", "cls")
    ]
    return re.sub(r"\s+", " ", str(inspect.Signature(parameters)))


def _doc(found) -> str:
    """The docstring; a colon that introduces a list is no heading, a star no emphasis."""
    text = inspect.getdoc(found) or ""
    return re.sub(r"(?<!`)\*(?!`)", r"\\*", text) + "\n" if text else ""


if __name__ == "__main__":
    PAGE.write_text(page())
