"""Sections of a cfg -> layers, what each reads, and the shape of every output.

A cfg is taken in passes (read, build, shape, share, fit); each reports every mistake it finds.
"""

import inspect
import math
import os
import re
from collections.abc import Iterable

from convnet.cfg import CfgError, Note, Section, Sections, Value, nearest, short
from convnet.layer import CostLayer, Layer, Weight
from convnet.registry import layer_class, types, with_rates

Shape = tuple[int, int, int]
FLOAT = 4  # bytes


def memory_of_computer() -> int | None:
    """Bytes of memory of this computer; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def bytes_of(count: int) -> str:
    """Bytes as text in MiB, GiB or TiB."""
    for unit, power in ("TiB", 40), ("GiB", 30):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}"
    return f"{count / 2**20:,.1f} MiB"


def dims(shape: tuple) -> str:
    """A shape as text: 13x13x256."""
    return "x".join(map(str, shape))


class Graph:
    """`layers` in order, each with the names it `reads`; `shapes` by name at the training size.

    `shared`: {(layer, weight): (layer, weight) whose array it is}, of weightSource. `remarks`:
    notes on what is no mistake.

    feeds: {dataIdx: (H, W, C) or None} of the data, None where the cfg says it (imgSize).
    classes: their number, for outputs=classes. keys_only: stop before the shapes, which need the
    data. Raises CfgError with every mistake.
    """

    def __init__(
        self,
        sections: Sections,
        params: Sections | None = None,
        feeds: dict[int, Shape | None] | None = None,
        classes: int | None = None,
        keys_only: bool = False,
    ):
        self.words = {} if classes is None else {"classes": classes}
        self.layers: list[Layer] = []
        self._shapes_at: dict[tuple, dict[str, Shape]] = {}
        merged, notes, self.remarks = with_rates(sections, Sections() if params is None else params)
        self._build(merged, notes)
        if keys_only:
            return
        self._find_shapes(feeds or {})
        self._share()
        self._refuse_too_large()
        self._mark_pyramids()

    def _build(self, merged: dict[str, Section], notes: list[Note]) -> None:
        """Sections -> layers, each with the names that it reads; all mistakes at once."""
        known, made_by = types(), {}
        for name, section in merged.items():
            made_by[name] = None
            word = section.get("type")
            if name != name.strip() or re.search(r"[,:[]", name):
                notes.append(section.wrong("a name cannot hold , : [ nor blanks at its ends"))
            if word is None:
                notes.append(section.wrong(f"needs type=, one of {', '.join(known)}"))
            elif word not in known:
                plain = re.fullmatch(r"\w+(\.\w+)*", word)
                why = f"no file layers/{word.replace('.', '/')}.py" if plain else "no such type"
                notes.append(word.wrong(why + nearest(word, known)))
            else:
                layer = layer_class(word)(section, self.words)
                whole = self._connect(layer, made_by, merged, notes)
                made_by[name] = layer if whole else None
                if layer.splits and layer.neuron:
                    neuron = self._neuron_of(layer, merged, notes)
                    made_by[name] = neuron if whole else None
        notes += self._data() if not notes else []
        notes += self._unused() if not notes else []
        if notes:
            raise CfgError(notes)
        self.by_name = {l.name: l for l in self.layers}
        self.alias = {name: layer.name for name, layer in made_by.items()}
        self.costs = [l.name for l in self.layers if isinstance(l, CostLayer)]
        self.remarks += self._unread()

    def _connect(self, layer: Layer, made_by: dict, merged: dict, notes: list[Note]) -> bool:
        """Find the layers that make the inputs; collect the layer's own mistakes.

        Returns whether all is well with it and the layers below, so that others may ask it.
        """
        producers = []
        for name in layer.inputs or ():
            made = made_by.get(name)
            if isinstance(made, CostLayer):
                why = f"{short(name)!r} is a cost; a layer cannot read it"
                layer.notes.append(layer.section["inputs"].wrong(why))
            elif name in made_by and name != layer.name:
                producers.append(made)
            else:
                where = "; it stands below, and inputs come first" if name in merged else ""
                where = "; '#' starts no comment here, ' ;' does" if "#" in name else where
                where = "; a layer cannot read itself" if name == layer.name else where
                where = where or nearest(name, made_by.keys() - {layer.name})
                why = f"no layer {short(name)!r} above{where}"
                layer.notes.append(layer.section["inputs"].wrong(why))
        layer.reads = [p.name for p in producers if p]
        whole = not layer.notes and all(producers)
        if whole or (layer.inputs and type(layer).link is Layer.link):
            try:
                linked = layer.link(producers)
                layer.reads += linked
                self._check_count(layer, len(layer.inputs or ()) + len(linked))
            except ValueError as e:
                layer.notes.append(layer.section["inputs"].wrong(str(e)))
        notes += layer.notes
        self.layers.append(layer)
        return whole and not layer.notes

    @staticmethod
    def _check_count(layer: Layer, count: int) -> None:
        """The parameters of `shape` say how many inputs a type takes."""
        wanted = inspect.signature(layer.shape).parameters.values()
        several = any(p.kind is p.VAR_POSITIONAL for p in wanted)
        least = sum(p.default is p.empty for p in wanted)
        if layer.inputs and not several and not least <= count <= len(wanted):
            s = "" if len(wanted) == 1 else "s"
            or_more = f"{least} or " if least < len(wanted) else ""
            raise ValueError(
                f"type={layer.type} reads {or_more}{len(wanted)} layer{s}, not {count}"
            )

    def _neuron_of(self, layer: Layer, merged: dict, notes: list[Note]) -> Layer:
        """The layer of type=neuron that neuron=... on another layer stands for."""
        name, n = f"{layer.name}_neuron", 0
        while name in merged:
            n += 1
            name = f"{layer.name}_neuron.{n}"
        section = Section(name, layer.section["neuron"].where)
        section["neuron"] = layer.section["neuron"]
        section["inputs"] = Value(layer.name, section.where, layer.name, "inputs")
        neuron = layer_class("neuron")(section, self.words)
        neuron.reads = [layer.name]
        notes += neuron.notes
        self.layers.append(neuron)
        return neuron

    def _data(self) -> list[Note]:
        """A net reads the images in one data layer; a second one of the same data is a mistake."""
        notes, first = [], {}
        for l in self.layers:
            if not l.inputs and first.setdefault(l.dataIdx, l) is not l:
                why = f"is already [{first[l.dataIdx].name}]'s; read that layer"
                notes.append(l.section["dataidx"].wrong(why))
        if 0 not in first:
            where = self.layers[0].section.where._replace(line=0)
            notes.append(Note(where, "no type=data layer with dataIdx=0: the net sees no images"))
        return notes

    def _unused(self) -> list[Note]:
        """A note for each layer that no other reads: usually a name forgotten in `inputs`."""
        read = {name for l in self.layers for name in l.reads}
        return [
            l.section.wrong("is unused: no layer reads it, and only a cost may be the last")
            for l in self.layers
            if l.name not in read and not isinstance(l, CostLayer)
        ]

    def _unread(self) -> list[Note]:
        """One remark for each key that is ignored, however many layers have it."""
        found: dict[str, list[Value]] = {}
        for value in (value for l in self.layers for value in l.unread):
            found.setdefault(value.key.lower(), []).append(value)
        return [
            values[0].wrong(
                "tuned the kernels of 2012; ignored"
                + (f", here and in {len(values) - 1} more" if len(values) > 1 else "")
            )
            for values in found.values()
        ]

    def _find_shapes(self, feeds: dict[int, Shape | None]) -> None:
        """Shapes at the size that the net is trained at."""
        self.shapes: dict[str, Shape] = {}
        notes = []
        for l in self.layers:
            try:
                if not l.inputs:
                    self.shapes[l.name] = self._positive(l.feed(feeds.get(l.dataIdx)))
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

    @staticmethod
    def _check_channels(l: Layer, ins: list[Shape]) -> None:
        """Old cfgs say how many channels come in; if they are wrong the cfg is."""
        for said, shape, name in zip(l.channels or [], ins, l.inputs):
            if said != shape[2]:
                raise ValueError(f"channels={said}: {name} has {shape[2]} channels")

    @staticmethod
    def _positive(shape: Shape) -> Shape:
        if math.prod(shape) >= 2**31:
            raise ValueError(
                f"too large: its output for one image would be {dims(shape)} numbers, "
                f"{bytes_of(FLOAT * math.prod(shape))}"
            )
        return shape

    def _share(self) -> None:
        """Find the weights that weightSource names; all mistakes at once."""
        self.shared: dict[tuple[str, str], tuple[str, str]] = {}
        notes, made = [], {}
        for l in self.layers:
            sources = getattr(l, "weightSource", None) or []
            if sources and len(sources) != len(l.inputs):
                why = f"must have {len(l.inputs)} items, one for each input, empty for own weights"
                notes.append(l.section["weightsource"].wrong(f"{why}; has {len(sources)}"))
                continue
            for name, weight in self.asked(l).items():
                source = sources[int(name[1:])] if sources and name != "b" else ""
                try:
                    if source:
                        self.shared[l.name, name] = self._source(source, l, weight.shape, made)
                except ValueError as e:
                    notes.append(l.section["weightsource"].wrong(str(e)))
                made[l.name, name] = weight.shape
        if notes:
            raise CfgError(notes)

    def _source(self, text: str, l: Layer, shape: tuple, made: dict) -> tuple[str, str]:
        """(layer, weight) that an item of weightSource means. ValueError where it cannot be."""
        found = re.fullmatch(r"([^\[\]]+?)\s*(?:\[\s*(\d{1,9})\s*\])?", text)
        if not found:
            raise ValueError(f"{short(text)!r} must be a layer, or layer[number of its input]")
        source = found[1], f"W{int(found[2] or 0)}"
        have = made.get(source)
        if have is None:
            count = sum(name == found[1] and k != "b" for name, k in made)
            near = nearest(found[1], {name for name, _ in made} - {l.name})
            near = f"; [{found[1]}] has {count} so far, from [0]" if count else near
            raise ValueError(f"no weights {short(text)!r} above{near}")
        if self.by_name[source[0]].type != l.type or have != shape:
            theirs = f"{dims(have)} weights of type={self.by_name[source[0]].type}"
            raise ValueError(
                f"{text} has {theirs}; this layer needs {dims(shape)} of type={l.type}"
            )
        return self.shared.get(source, source)

    def weights_of(self, l: Layer) -> int:
        """How many weights a layer has of its own; those it shares count at their source."""
        own = (w for name, w in self.asked(l).items() if (l.name, name) not in self.shared)
        return sum(math.prod(w.shape) for w in own)

    def _refuse_too_large(self) -> None:
        """CfgError if weights and the outputs for one image are more than the memory there is."""
        have, weights = memory_of_computer(), {l: self.weights_of(l) for l in self.layers}
        need = {l: FLOAT * (weights[l] + math.prod(self.shapes[l.name])) for l in self.layers}
        total, most = sum(need.values()), max(need, key=need.get)
        if have is not None and total > have:
            raise CfgError(
                [
                    most.section.wrong(
                        f"too large: its {weights[most]:,} weights and output of "
                        f"{dims(self.shapes[most.name])} take {bytes_of(need[most])}, all layers "
                        f"{bytes_of(total)}; this computer has {bytes_of(have)} of memory"
                    )
                ]
            )

    def _mark_pyramids(self) -> None:
        """Pools that cut one map into n x n bins each, read together, are a spatial pyramid.

        At another size of the map they keep their n, as type=spp does (SPP-net's test time).
        """
        levels: dict[str, list[tuple[Layer, int]]] = {}
        for l in self.layers:
            if l.reads and (n := l.pyramid(self.shapes[l.reads[0]])):
                levels.setdefault(l.reads[0], []).append((l, n))
        for source, pools in levels.items():
            together = [(l, n) for l, n in pools if self._meets_another(l, pools)]
            if len({n for _, n in together}) > 1:
                for l, n in together:
                    l.level, l.trained_on = n, self.shapes[source]

    def _meets_another(self, pool: Layer, pools: list[tuple[Layer, int]]) -> bool:
        """Whether some layer reads this pool and another of them, neurons between or not."""
        ends = {l.name: self._ends(l.name) for l, _ in pools}
        mine = ends.pop(pool.name)
        return any(mine & theirs for theirs in ends.values())

    def _ends(self, name: str) -> set[str]:
        """The layers that read this one, past layers of type=neuron."""
        found: set[str] = set()
        for l in self.layers:
            if name in l.reads:
                found |= {l.name} if l.splits else self._ends(l.name)
        return found

    def check_no_windows(self) -> None:
        """CfgError where the net reads windows of photos: such a detector has its own tool."""
        notes = [
            self.by_name[name].section["dataidx"].wrong("only tools/detect.py has windows to give")
            for idx, name in self.feeds.items()
            if idx > 1
        ]
        if notes:
            raise CfgError(notes)

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

    def parts(self, name: str) -> list[str]:
        """The layers whose outputs, one behind the other, a user means by a name; as `resolve`.

        `spp`, where no layer is called so, is all that the first layer above a pyramid reads, in
        its order: an fc over pools, or over a layer of another name that makes one.
        """
        if name == "spp" and name not in self.alias:
            above = {end for l in self.layers if l.bins() for end in self._ends(l.name)}
            reads = next((l.reads for l in self.layers if l.name in above), None)
            if not reads:
                raise ValueError("no layer 'spp', and this net has no pyramid")
            return reads
        return [self.resolve(name)]

    def shapes_at(
        self, given: dict[str, Shape], only: Iterable[str] | None = None
    ) -> dict[str, Shape]:
        """Shapes of all layers (or of `only` these) when the named layers give these.

        ValueError where the net cannot run.
        """
        wanted = frozenset(self.by_name if only is None else only)
        at = (wanted, *sorted(given.items()))
        if at not in self._shapes_at:
            self._shapes_at[at] = self._walk(dict(given), wanted)
        return self._shapes_at[at]

    def _walk(self, shapes: dict[str, Shape], wanted: frozenset[str]) -> dict[str, Shape]:
        for name, shape in shapes.items():
            if shape[2] != self.shapes[name][2]:
                raise ValueError(f"[{name}] has {self.shapes[name][2]} channels, got {shape[2]}")
        for l in self.layers:
            ins = [shapes[name] for name in l.reads if name in shapes]
            skip = l.name in shapes or l.name not in wanted or not l.inputs
            if skip or len(ins) < len(l.reads):
                continue
            try:
                shapes[l.name] = l.shape(*ins)
                now = {name: w.shape for name, w in l.weights(*ins).items()}
            except ValueError as e:
                raise ValueError(f"[{l.name}] {e}") from None
            moved = l.positional and ins != [self.shapes[name] for name in l.reads]
            if moved or now != {name: w.shape for name, w in self.asked(l).items()}:
                self._refuse(l, ins)
        return shapes

    def asked(self, l: Layer) -> dict[str, Weight]:
        """The weights that a layer asks for at the training size."""
        return l.weights(*[self.shapes[name] for name in l.reads]) if l.inputs else {}

    def _refuse(self, layer: Layer, ins: list[Shape]) -> None:
        got = " + ".join(map(dims, ins))
        was = " + ".join(dims(self.shapes[name]) for name in layer.reads)
        raise ValueError(
            f"[{layer.name}] gets {got}, its weights are for {was}: this net takes images of "
            f"{self.size}x{self.size} only; a pyramid (type=spp) in front of the first fc layer "
            "lifts that"
        )
