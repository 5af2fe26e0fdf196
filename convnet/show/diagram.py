"""Boxes and arrows as SVG, as a picture of matplotlib, as text for Graphviz."""

from html import escape
from itertools import pairwise
from typing import NamedTuple

from convnet.show import style
from convnet.show.layout import HEIGHT, WIDTH, Placed

LETTERS = 26  # that a line of a box has room for
FONT = "system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif"


class Box(NamedTuple):
    """One layer in the picture, with its neuron."""

    name: str
    what: str  # its type and the main keys
    makes: str  # shape of the output, weights
    colour: str
    dashed: bool = False


def _lines(box: Box) -> list[tuple[str, int, float, str]]:
    """(text, size, y below the head, weight) of what stands in a box."""
    rows = ((box.name, 13, 20, "bold"), (box.what, 11, 35, "normal"), (box.makes, 11, 50, "normal"))
    return [(style.short(text, LETTERS + (size < 13) * 4), size, y, w) for text, size, y, w in rows]


def svg(boxes: dict[str, Box], placed: Placed, inline: bool = False) -> str:
    """An <svg>; inline: to stand in a page of HTML, with the ink of the page."""
    w, h = placed.size
    ink = "currentColor" if inline else style.INK
    alone = f'xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}"'
    space = f'style="max-width:{w:.0f}px"' if inline else alone
    made = [f'<svg {space} viewBox="0 0 {w:.0f} {h:.0f}" font-family="{FONT}" role="img">']
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
                    f'fill="{box.colour}" fill-opacity="0.13" '
                    f'stroke="{box.colour}"{dash}/>')  # fmt: skip
        for text, size, down, weight in _lines(box):
            made.append(f'<text x="{x:.1f}" y="{top + down:.1f}" text-anchor="middle" '
                        f'font-size="{size}" font-weight="{weight}" fill="{ink}">'
                        f"{escape(text)}</text>")  # fmt: skip
        made.append("</g>")
    return "\n".join([*made, "</svg>"])


def _path(points: list[tuple[float, float]]) -> str:
    """Curves between rows, lines past them."""
    made = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to, below) in pairwise(points):
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


def painted(boxes: dict[str, Box], placed: Placed):
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
            for (x, y), (to, below) in pairwise(points):
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
