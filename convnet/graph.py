"""Sections of a cfg -> layers, what each reads, and the shape of every output.

The directory is the registry: type=cost.logreg is layers/cost/logreg.py. A cfg is taken in passes
(read, build, shape); each reports every mistake it finds.
"""

import importlib
import inspect
import math
from pathlib import Path

from convnet.cfg import CfgError, Note, Section, Sections, Value, nearest
from convnet.layer import CostLayer, Layer, Weight

HOME = Path(importlib.import_module("layers").__path__[0])
Shape = tuple[int, int, int]


def types() -> list[str]:
    """Every word that may follow type=, from the names of the files in layers/."""
    files = (f.relative_to(HOME).with_suffix("") for f in HOME.rglob("[!_]*.py"))
    return sorted(".".join(f.parts) for f in files)


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
    keys = layer_class(word).keys() if word in types() else {}
    return {name.lower(): name for name, made in keys.items() if made.rate}


def with_rates(sections: Sections, params: Sections) -> tuple[dict[str, Section], list[Note]]:
    """The sections with the rates of the params file over their own, and remarks.

    CfgError for a key in the params file that is no rate of its layer. Sections of the params
    file without a layer are remarked on only: several nets often share one params file.
    """
    merged, notes = {}, []
    for name, section in sections.items():
        merged[name] = Section(name, section.where)
        merged[name].update(section)
        merged[name].inherited = set(section.inherited)
        rates, own = rates_of(section), params.get(name, {})
        merged[name].update({k: v for k, v in params.default.items() if k in rates})
        merged[name].update({k: v for k, v in own.items() if k in rates})
        for word, value in own.items():
            if word not in rates and word not in own.inherited and section.get("type") in types():
                notes.append(value.wrong(_no_rate(word, section, rates)))
    remarks = [
        section.wrong("no layer of this name; ignored")
        for name, section in params.items()
        if name not in sections
    ]
    if notes:
        raise CfgError(notes)
    return merged, remarks


def _no_rate(word: str, section: Section, rates: dict[str, str]) -> str:
    known = layer_class(section["type"]).keys()
    if word in map(str.lower, known):
        return "is no rate; it belongs in the layer definition"
    return f"type={section['type']} has no such rate{nearest(word, rates.values())}"


class Graph:
    """`layers` in order, each with the names it `reads`; `shapes` by name at the training size.

    feeds: {dataIdx: (H, W, C) or None} of the data, None where the cfg says it (imgSize).
    classes: their number, for outputs=classes. Raises CfgError with every mistake.
    """

    def __init__(
        self,
        sections: Sections,
        params: Sections | None = None,
        feeds: dict[int, Shape | None] | None = None,
        classes: int | None = None,
    ):
        self.words = {} if classes is None else {"classes": classes}
        self.layers: list[Layer] = []
        self._shapes_at: dict[tuple, dict[str, Shape]] = {}
        merged, self.remarks = with_rates(sections, Sections() if params is None else params)
        self._build(merged)
        self._find_shapes(feeds or {})

    def _build(self, merged: dict[str, Section]) -> None:
        """Sections -> layers, each with the names that it reads; all mistakes at once."""
        notes, known, made_by = [], types(), {}
        for name, section in merged.items():
            word = section.get("type")
            if word is None:
                notes.append(section.wrong("needs type="))
            elif word not in known:
                at = f"layers/{word.replace('.', '/')}.py"
                notes.append(word.wrong(f"no file {at}{nearest(word, known)}"))
            else:
                layer = layer_class(word)(section, self.words)
                self._connect(layer, made_by, merged, notes)
                made_by[name] = layer
                if layer.splits and layer.neuron:
                    made_by[name] = self._neuron_of(layer, notes)
                continue
            made_by[name] = None
        made_by = {name: layer for name, layer in made_by.items() if layer}
        if not notes:
            notes += self._unused()
        if notes:
            raise CfgError(notes)
        self.by_name = {l.name: l for l in self.layers}
        self.alias = {name: layer.name for name, layer in made_by.items()}
        self.costs = [l.name for l in self.layers if isinstance(l, CostLayer)]
        self.remarks += [remark for l in self.layers for remark in l.remarks]

    def _connect(self, layer: Layer, made_by: dict, merged: dict, notes: list[Note]) -> None:
        """Find the layers that make the inputs; collect the layer's own mistakes."""
        producers = []
        for name in layer.inputs or ():
            made = made_by.get(name)
            if isinstance(made, CostLayer):
                layer.notes.append(layer.section["inputs"].wrong(f"{name!r} is a cost; no output"))
            elif name in made_by:
                producers.append(made)
            else:
                below = " (it stands below; inputs come first)" if name in merged else ""
                near = nearest(name, made_by) if not below else ""
                why = f"no layer {name!r} above{below}{near}"
                layer.notes.append(layer.section["inputs"].wrong(why))
        layer.reads = [p.name for p in producers if p]
        if not layer.notes and all(producers):
            try:
                layer.reads += layer.link(producers)
                self._check_count(layer)
            except ValueError as e:
                layer.notes.append(layer.section["inputs"].wrong(str(e)))
        notes += layer.notes
        self.layers.append(layer)

    @staticmethod
    def _check_count(layer: Layer) -> None:
        """The parameters of `shape` say how many inputs a type takes."""
        wanted = inspect.signature(layer.shape).parameters.values()
        several = any(p.kind is p.VAR_POSITIONAL for p in wanted)
        if layer.inputs and not several and len(layer.reads) != len(wanted):
            raise ValueError(f"type={layer.type} reads {len(wanted)}, not {len(layer.reads)}")

    def _neuron_of(self, layer: Layer, notes: list[Note]) -> Layer:
        """The layer of type=neuron that neuron=... on another layer stands for."""
        section = Section(f"{layer.name}_neuron", layer.section["neuron"].where)
        section["neuron"] = layer.section["neuron"]
        section["inputs"] = Value(layer.name, section.where, layer.name, "inputs")
        neuron = layer_class("neuron")(section, self.words)
        neuron.reads = [layer.name]
        notes += neuron.notes
        self.layers.append(neuron)
        return neuron

    def _unused(self) -> list[Note]:
        """A note for each layer that no other reads: usually a name forgotten in `inputs`."""
        read = {name for l in self.layers for name in l.reads}
        return [
            l.section.wrong(f"type={l.type} is unused: no layer reads it")
            for l in self.layers
            if l.name not in read and not isinstance(l, CostLayer)
        ]

    def _find_shapes(self, feeds: dict[int, Shape | None]) -> None:
        """Shapes at the size that the net is trained at, then the pyramids among the pools."""
        self.shapes: dict[str, Shape] = {}
        notes = []
        for l in self.layers:
            try:
                if not l.inputs:
                    self.shapes[l.name] = l.feed(feeds.get(l.dataIdx))
                elif all(name in self.shapes for name in l.reads):
                    ins = [self.shapes[name] for name in l.reads]
                    self._check_channels(l, ins)
                    self.shapes[l.name] = self._positive(l.shape(*ins))
                    l.weights(*ins)
            except ValueError as e:
                notes.append(l.section.wrong(str(e)))
        if notes:
            raise CfgError(notes)
        self.feeds = {l.dataIdx: l.name for l in self.layers if not l.inputs}
        self._mark_pyramids()

    @staticmethod
    def _check_channels(l: Layer, ins: list[Shape]) -> None:
        """Old cfgs say how many channels come in; if they are wrong the cfg is."""
        for said, shape, name in zip(l.channels or [], ins, l.reads):
            if said != shape[2]:
                raise ValueError(f"channels={said}, but {name} has {shape[2]}")

    @staticmethod
    def _positive(shape: Shape) -> Shape:
        if math.prod(shape) >= 2**31:
            raise ValueError(f"its output would have {math.prod(shape):,} numbers an image")
        return shape

    def _mark_pyramids(self) -> None:
        """Two or more pools that cut one map into n x n bins each are a spatial pyramid.

        At another size of the map they keep their n, as type=spp does (SPP-net's test time).
        """
        levels: dict[str, list[tuple[Layer, int]]] = {}
        for l in self.layers:
            if len(l.reads) == 1 and (n := l.pyramid(self.shapes[l.reads[0]])):
                levels.setdefault(l.reads[0], []).append((l, n))
        for source, pools in levels.items():
            if len(pools) > 1:
                for l, n in pools:
                    l.level, l.trained_on = n, self.shapes[source]

    @property
    def size(self) -> int:
        """Side of the images that the net is trained on."""
        return self.shapes[self.feeds[0]][0]

    def resolve(self, name: str) -> str:
        """The layer that others read under this name: conv1 is what its neuron gives.

        `conv1:pre` is the output before the neuron. ValueError with the nearest name.
        """
        before = name.removesuffix(":pre")
        if before not in self.alias:
            raise ValueError(f"no layer {before!r}{nearest(before, self.alias)}")
        return before if before != name else self.alias[name]

    def shapes_at(self, given: dict[str, Shape]) -> dict[str, Shape]:
        """Every shape when the named layers give these. ValueError where the net cannot run."""
        at = tuple(sorted(given.items()))
        if at not in self._shapes_at:
            self._shapes_at[at] = self._walk(dict(given))
        return self._shapes_at[at]

    def _walk(self, shapes: dict[str, Shape]) -> dict[str, Shape]:
        for name, shape in shapes.items():
            if shape[2] != self.shapes[name][2]:
                raise ValueError(f"[{name}] has {self.shapes[name][2]} channels, got {shape[2]}")
        for l in self.layers:
            ins = [shapes[name] for name in l.reads if name in shapes]
            if l.name in shapes or not l.inputs or len(ins) < len(l.reads):
                continue
            try:
                shapes[l.name] = l.shape(*ins)
                now = {name: w.shape for name, w in l.weights(*ins).items()}
            except ValueError as e:
                raise ValueError(f"[{l.name}] {e}") from None
            if now != {name: w.shape for name, w in self.asked(l).items()}:
                self._refuse(l, ins)
        return shapes

    def asked(self, l: Layer) -> dict[str, Weight]:
        """The weights that a layer asks for at the training size."""
        return l.weights(*[self.shapes[name] for name in l.reads]) if l.inputs else {}

    def _refuse(self, layer: Layer, ins: list[Shape]) -> None:
        got = " + ".join("{}x{}x{}".format(*x) for x in ins)
        was = " + ".join("{}x{}x{}".format(*self.shapes[name]) for name in layer.reads)
        raise ValueError(
            f"[{layer.name}] gets {got}, its weights are for {was}: this net takes images of "
            f"{self.size}x{self.size} only; a pyramid (type=spp) in front of the first fc layer "
            "lifts that"
        )
