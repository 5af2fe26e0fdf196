"""How pictures look and how they are written; matplotlib draws them, imported where it is needed.

A picture is a function that paints on a matplotlib Figure. Colours are those of Okabe and Ito,
which people with any kind of colour vision can tell apart.
"""

import io
import re
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from convnet import files, given
from convnet.cli import UsageError
from convnet.providers import printable

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f6f6f", "#b8a800")
TRUE, OTHER = COLOURS[1], COLOURS[0]  # the class that an image shows; the others
INK, PALE = "#222428", "#8a8f98"  # of text; of what stands behind it
KINDS = (".png", ".svg")
DOTS = 150  # an inch
RC = {
    "axes.edgecolor": PALE,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "font.size": 9.5,
    "grid.alpha": 0.25,
    "grid.color": PALE,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "convnet",  # the same picture has the same ids
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": INK,
    "ytick.color": INK,
}

GLYPH = "Glyph .* missing"  # matplotlib's warning of a letter that no font has
SCRIPTS = (  # fonts of systems that have the letters which matplotlib's own lacks
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Segoe UI", "Nirmala UI"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai"),
)

Paint = Callable[..., None]  # (figure) -> None


def short(name: str, most: int) -> str:
    """A name on one line, its end cut off where it is longer than that."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def matplotlib_or_error():
    """matplotlib. UsageError where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError("pictures: need matplotlib: python -m pip install -e '.[show]'") from None
    return matplotlib


@contextmanager
def _drawn(paint: Paint, size: tuple[float, float]):
    """The painted figure of this size in inches, under our settings. UsageError."""
    matplotlib = matplotlib_or_error()
    from matplotlib.figure import Figure

    settings = {**matplotlib.rcParamsDefault, **RC, "font.family": _families()}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", GLYPH)
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        yield figure


def _families() -> list[str]:
    """The fonts of names: matplotlib's own, then what of SCRIPTS is installed."""
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in SCRIPTS if name in there)]


def write(path: Path, paint: Paint, size: tuple[float, float]) -> None:
    """Paint a picture of this size in inches into a .png or .svg, whole or not at all.

    Raises UsageError.
    """
    with _drawn(paint, size) as figure:
        made = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with warnings.catch_warnings(record=True) as told:
            warnings.filterwarnings("always", GLYPH)
            figure.savefig(made, format=path.suffix[1:], dpi=DOTS, metadata=metadata)
    if path.suffix == ".png" and any(re.match(GLYPH, str(w.message)) for w in told):
        given.say_notes([f"{path}: no font that is installed has all letters of the names; "
                         "--out=<file>.svg leaves them to whoever shows it"])  # fmt: skip
    save(path, made.getvalue())


def save(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. UsageError."""
    try:
        files.replace(path, [content])
    except OSError as e:
        raise UsageError(f"{path}: not written, {files.advice(e)}") from None


def inline(paint: Paint, size: tuple[float, float], name: str) -> str:
    """The picture as an <svg> to stand in a page of HTML; its ink is the page's.

    name: what its ids begin with, one for each picture of a page.
    """
    with _drawn(paint, size) as figure:
        made = io.StringIO()
        figure.savefig(made, format="svg", transparent=True, metadata={"Date": None})
    text = made.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'( width| height)="[\d.]+pt"', "", text, count=2)
    text = text.replace("<svg", f'<svg style="max-width:{size[0]:.2f}in"', 1)

    def tag(found: re.Match) -> str:  # what stands between tags is names of classes and files
        own = re.sub(r' xmlns(:\w+)?="[^"]*"', "", found[0])
        own = re.sub(r'\bid="', f'id="{name}-', own)
        own = re.sub(r'(href="#|url\(#)', rf"\1{name}-", own)
        return own.replace(INK, "currentColor")

    return re.sub(r"<[^>]*>", tag, text).strip()


def zoom_for(side: int, columns: int) -> int:
    """How much larger to draw pixels, so that rows of tiles of this side are neither tiny nor wide.

    At most DOTS for 8 inches in all and 72 for one tile.
    """
    return max(1, min(8 * DOTS // (columns * side), 72 // side))


def framed(pixels: np.ndarray, title: str, note: str = "") -> tuple[Paint, tuple[float, float]]:
    """(paint, size in inches): pixels (H, W, C) as they are, a title above, a note below."""
    above, below, side = 0.42, 0.3 if note else 0.1, 0.12
    high, wide = (n / DOTS for n in pixels.shape[:2])
    width = max(wide + 2 * side, 0.082 * max(len(title) * 1.12, len(note) * 0.8) + 2 * side)
    height = high + above + below

    def paint(figure) -> None:
        figure.set_layout_engine("none")
        image(figure.add_axes((side / width, below / height, wide / width, high / height)), pixels)
        figure.text(side / width, 1 - 0.12 / height, title, fontsize=11, va="top")
        figure.text(side / width, 0.1 / height, note, fontsize=8, color=PALE)

    return paint, (width, height)


def image(axes, pixels) -> None:
    """Pixels (H, W, 1 or 3), uint8 or 0 to 1, as they are; where they are NaN nothing is drawn."""
    pixels = np.asarray(pixels, np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    rgb = np.broadcast_to(np.nan_to_num(pixels), (*pixels.shape[:2], 3))
    there = np.isfinite(pixels[..., :1]).astype(np.float32)
    axes.imshow(np.concatenate([rgb, there], axis=2).clip(0, 1), interpolation="nearest")
    axes.set_axis_off()
