"""A net as boxes and arrows: SVG, PNG, or text for Graphviz (.dot)."""

from html import escape
from pathlib import Path
from typing import NamedTuple

from convnet import given, runfolder
from convnet.graph import Graph, dims
from convnet.layer import CostLayer, Layer
from convnet.show import opened, style
from convnet.show.layout import HEIGHT, WIDTH, Placed, place
from convnet.source import Source
from convnet.summary import short

KINDS = (".svg", ".png", ".dot")
LETTERS = 24  # that a line of a box has room for
FONT = "system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif"


class Box(NamedTuple):
    """One layer in the picture, with its neuron."""

    name: str
    what: str  # its type and the main keys
    makes: str  # shape of the output, weights
    colour: str
    dashed: bool = False


def graph(args) -> list[Path]:
    """tools/show.py graph"""
    net, folder, name = _opened(args)
    out = opened.target(args, folder, name, KINDS)
    boxes, reads = boxes_of(net)
    if out.suffix == ".dot":
        style.save(out, dot(boxes, reads).encode())
    elif out.suffix == ".svg":
        style.save(out, svg(boxes, place(reads)).encode())
    else:
        style.write(out, *_painted(boxes, place(reads)))
    return [out]


def _opened(args) -> tuple[Graph, Path, str]:
    """The graph of a cfg or of a run; the folder and the name of the picture."""
    path = Path(args.run)
    if path.is_dir() or path.suffix == ".h5":
        saved, path, notes = runfolder.find(path)
        given.say_notes(notes)
        meta = given.meta_of(saved, path)
        source = Source.from_dict(meta["source"])
        net = source.graph({0: tuple(meta["image"])}, len(meta["classes"]))
        return net, path.parent, "graph.svg"
    source = Source.read(path)
    side, channels = source.image_size()
    side = args.size or side
    classes = args.classes or (10 if "classes" in source.text else None)
    net = source.graph({0: (side, side, channels) if side else None}, classes)
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
    weights = graph.weights_of(l)
    makes = dims(graph.shapes[l.name]) + (f" · {short(weights)} weights" if weights else "")
    owners = {owner for (name, _), (owner, _) in graph.shared.items() if name == l.name}
    makes += "".join(f" [{owner}]" for owner in sorted(owners - {l.name}))
    drops = l.type.startswith("dropout")
    colour = style.PALE
    if isinstance(l, CostLayer):
        colour = style.COLOURS[1]
    elif l.bins():
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


def _lines(box: Box) -> list[tuple[str, int, float, str]]:
    """(text, size, y below the head, weight) of what stands in a box."""
    rows = ((box.name, 13, 20, "bold"), (box.what, 11, 35, "normal"), (box.makes, 11, 50, "normal"))
    return [(style.short(text, LETTERS + (size < 13) * 4), size, y, w) for text, size, y, w in rows]


def svg(boxes: dict[str, Box], placed: Placed, inline: bool = False) -> str:
    """An <svg>; inline: to stand in a page of HTML, with the ink of the page."""
    w, h = placed.size
    ink = "currentColor" if inline else style.INK
    space = (
        "" if inline else f' xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}"'
    )
    made = [f'<svg{space} viewBox="0 0 {w:.0f} {h:.0f}" font-family="{FONT}" role="img">']
    if not inline:
        made.append('<rect width="100%" height="100%" fill="white"/>')
    for points in placed.arrows:
        made.append(f'<path d="{_path(points)}" fill="none" stroke="{style.PALE}" '
                    'stroke-width="1.4"/>')  # fmt: skip
        x, y = points[-1]
        made.append(f'<path d="M{x - 4:.1f} {y - 7:.1f}L{x:.1f} {y:.1f}L{x + 4:.1f} {y - 7:.1f}z" '
                    f'fill="{style.PALE}"/>')  # fmt: skip
    for name, (x, y) in placed.boxes.items():
        box, left, top = boxes[name], x - WIDTH / 2, y - HEIGHT / 2
        dash = ' stroke-dasharray="5 4"' if box.dashed else ""
        made.append(f"<g><title>{escape(f'{name}: {box.what}, {box.makes}')}</title>")
        made.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="7" '
                    f'fill="{box.colour}" fill-opacity="0.13" stroke="{box.colour}"{dash}/>')  # fmt: skip
        for text, size, down, weight in _lines(box):
            made.append(f'<text x="{x:.1f}" y="{top + down:.1f}" text-anchor="middle" '
                        f'font-size="{size}" font-weight="{weight}" fill="{ink}">'
                        f"{escape(text)}</text>")  # fmt: skip
        made.append("</g>")
    return "\n".join([*made, "</svg>"])


def _path(points: list[tuple[float, float]]) -> str:
    """Curves between rows, lines past them."""
    made = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to, below) in zip(points, points[1:]):
        middle = (y + below) / 2
        made += f"C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {below:.1f}"
    return made


def dot(boxes: dict[str, Box], reads: dict[str, list[str]]) -> str:
    """Text for Graphviz."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph net {", "  node [shape=box, style=rounded, fontname=Helvetica];"]
    for name, box in boxes.items():
        label = r"\n".join(quoted(text)[1:-1] for text in (name, box.what, box.makes))
        dashed = ', style="rounded,dashed"' if box.dashed else ""
        lines.append(f'  {quoted(name)} [label="{label}", color="{box.colour}"{dashed}];')
    lines += [f"  {quoted(o)} -> {quoted(n)};" for n, ins in reads.items() for o in ins]
    return "\n".join([*lines, "}", ""])


def _painted(boxes: dict[str, Box], placed: Placed):
    """The same with matplotlib, for PNG: (paint, size in inches)."""
    w, h = placed.size

    def paint(figure) -> None:
        from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
        from matplotlib.path import Path as Line

        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, w), ylim=(h, 0))
        axes.set_axis_off()
        for points in placed.arrows:
            vertices, codes = [points[0]], [Line.MOVETO]
            for (x, y), (to, below) in zip(points, points[1:]):
                vertices += [(x, (y + below) / 2), (to, (y + below) / 2), (to, below)]
                codes += [Line.CURVE4] * 3
            arrow = FancyArrowPatch(path=Line(vertices, codes), arrowstyle="-|>", lw=0.9,
                                    mutation_scale=7, color=style.PALE)  # fmt: skip
            axes.add_patch(arrow)
        for name, (x, y) in placed.boxes.items():
            box, corner = boxes[name], (x - WIDTH / 2, y - HEIGHT / 2)
            for fill, edge in ((box.colour + "22", "none"), ("none", box.colour)):
                axes.add_patch(FancyBboxPatch(
                    corner, WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=7", fc=fill,
                    ec=edge, lw=0.8, ls="--" if box.dashed else "-"))  # fmt: skip
            for text, size, down, weight in _lines(box):
                axes.text(x, corner[1] + down, text, ha="center", fontsize=size * 0.68,
                          weight=weight)  # fmt: skip

    return paint, (w / 100, h / 100)
