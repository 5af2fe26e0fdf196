"""A net as boxes and arrows: SVG, PNG, or text for Graphviz (.dot)."""

from pathlib import Path

from convnet import given
from convnet.cli import UsageError
from convnet.graph import Graph, dims
from convnet.layer import CostLayer, Layer
from convnet.show import opened, style
from convnet.show.diagram import Box, dot, painted, svg
from convnet.show.layout import place
from convnet.source import Source
from convnet.summary import short

KINDS = (".svg", ".png", ".dot")


def graph(args) -> Path:
    """tools/show.py graph"""
    net, folder, name = _opened(args)
    out = opened.target(args, folder, name, KINDS)
    boxes, reads = boxes_of(net)
    if out.suffix == ".dot":
        style.save(out, dot(boxes, reads).encode())
    elif out.suffix == ".svg":
        style.save(out, svg(boxes, place(reads)).encode())
    else:
        style.write(out, *painted(boxes, place(reads)))
    return out


def _opened(args) -> tuple[Graph, Path, str]:
    """The graph of a cfg or of a run; the folder and the name of the picture."""
    path = Path(args.run)
    if path.is_dir() or path.suffix == ".h5":
        for option, value in vars(args).items():
            if option in ("classes", "size", "set") and value:
                value = value[0] if option == "set" else value
                raise UsageError(f"--{option}={value}: a run has its own")
        saved, path = given.found(path)
        meta = saved.meta
        source = Source.from_dict(meta["source"])
        net = source.graph({0: tuple(meta["image"])}, len(meta["classes"]))
        return net, path.parent, "graph.svg"
    source = Source.read(path, overrides=tuple(args.set))
    images = source.images((args.size, args.size) if args.size else None)
    net = source.graph({0: images}, source.class_count(args.classes))
    return net, Path(), f"{path.stem}.svg"


def boxes_of(graph: Graph) -> tuple[dict[str, Box], dict[str, list[str]]]:
    """Boxes by name, and which boxes each reads; a layer and its neuron are one."""
    inside = {made: name for name, made in graph.alias.items() if made != name}
    boxes, reads = {}, {}
    for l in graph.layers:
        if l.name not in inside:
            boxes[l.name] = _box(graph, l)
            reads[l.name] = list(l.inputs or ())
    return boxes, reads


def _box(graph: Graph, l: Layer) -> Box:
    if isinstance(l, CostLayer):
        return Box(l.name, _words(l), ", ".join(l.values), style.COLOURS[1], False)
    weights = graph.weights_of(l)
    makes = dims(graph.shapes[l.name]) + (f" · {short(weights)} weights" if weights else "")
    owners = {owner for (name, _), (owner, _) in graph.shared.items() if name == l.name}
    makes += "".join(f" [{owner}]" for owner in sorted(owners - {l.name}))
    drops = l.type.startswith("dropout")
    colour = style.PALE
    if l.bins():
        colour = style.COLOURS[3]
    elif weights or owners:
        colour = style.COLOURS[0]
    elif l.reads and l.window(0) and l.window(0)[0] > 1:
        colour = style.COLOURS[2]
    return Box(l.name, _words(l), makes, colour, drops)


def _words(l: Layer) -> str:
    """Its type and what matters most of its keys: 'conv 7x7 /2, relu'."""
    words = [l.type]
    words += [getattr(l, "pool", None) or ""]
    side, stride = (_first(getattr(l, key, None)) for key in ("filterSize", "stride"))
    side = side or getattr(l, "sizeX", None)
    words += [f"{side}x{side}" if side else "", f"/{stride}" if (stride or 1) > 1 else ""]
    words += [",".join(map(str, getattr(l, "levels", ())))]
    words += [f"keep {l.keep:g}" if isinstance(getattr(l, "keep", None), float) else ""]
    neuron = f", {l.neuron.partition('[')[0]}" if l.neuron and l.splits else ""
    return " ".join(filter(None, words)) + (neuron or (f" {l.neuron}" if l.neuron else ""))


def _first(value):
    return value[0] if isinstance(value, list) and value else value
