"""Pieces of HTML for a report. Whatever is text is escaped here; pictures are part of the page."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image

from convnet.show import style

STYLE = """
:root { color-scheme: light dark; --ink: #1d2026; --soft: #626873; --line: #d9dce2;
  --paper: #ffffff; --raised: #f5f6f8; --true: #d55e00; --other: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa1ad; --line: #363b45;
  --paper: #16181d; --raised: #1f2229; --true: #f08a3c; --other: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0.4rem 0 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h1 + p { margin: 0 0 1rem; font-size: 1.15rem; color: var(--soft); }
h2 { margin: 2.4rem 0 0.7rem; padding-top: 0.9rem; border-top: 1px solid var(--line);
  font-size: 1.15rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr:last-child td { padding-bottom: 0.5rem; }
details { margin: 0.7rem 0; } summary { cursor: pointer; color: var(--other); }
pre { margin: 0.4rem 0; padding: 0.8rem; overflow-x: auto; background: var(--raised);
  border-radius: 8px; font: 0.8rem/1.45 ui-monospace, monospace; }
pre i { display: inline-block; width: 3.2em; padding-right: 1em; color: var(--soft);
  font-style: normal; text-align: right; user-select: none; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr));
  gap: 0.9rem; }
.card { padding: 0.7rem; border-radius: 10px; background: var(--raised); }
.card img { display: block; width: 100%; max-width: 12rem; margin: 0 auto 0.5rem;
  image-rendering: pixelated; border-radius: 5px; }
.card h3 { margin: 0 0 0.4rem; font-size: 0.95rem; color: var(--true); overflow-wrap: anywhere; }
.card h3 small { display: block; color: var(--soft); font-weight: 400; }
.bar { position: relative; display: flex; justify-content: space-between; margin-top: 3px;
  padding: 0 6px; font-size: 0.82rem; line-height: 1.55; }
.bar span { position: relative; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar span + span { flex: none; padding-left: 0.5em; }
.bar::before { content: ""; position: absolute; inset: 0 auto 0 0; width: var(--p);
  border-radius: 3px; background: var(--other); opacity: 0.38; }
.bar.true { font-weight: 650; } .bar.true::before { background: var(--true); opacity: 0.5; }
"""


def page(name: str, subtitle: str, body: str) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(name)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(name)}</h1>\n<p>{escape(subtitle)}</p>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, body: str) -> str:
    """A part with its title."""
    return f"<h2>{escape(title)}</h2>\n{body}\n"


def facts(values: dict[str, str]) -> str:
    """Names and values."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items())
    return f"<dl>{rows}</dl>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] | None = None,
    fold: str = "",
) -> str:
    """Rows of text. numbers: columns to the right (default: where the first row has a number)."""
    rows = list(rows)
    right = {*numbers} if numbers is not None else {i for i, c in enumerate(rows[0]) if _number(c)}

    def line(cells: Sequence[str], tag: str) -> str:
        made = (
            f"<{tag}{' class=n' * (i in right)}>{escape(c)}</{tag}>" for i, c in enumerate(cells)
        )
        return f"<tr>{''.join(made)}</tr>\n"

    body = "".join(line(row, "td") for row in rows)
    made = f'<div class="wide"><table>{line(head, "th")}{body}</table></div>'
    return f"<details><summary>{escape(fold)}</summary>{made}</details>" if fold else made


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def picture(svg: str, least: int) -> str:
    """An <svg> as wide as the page, but not below so many pixels."""
    return f'<div class="wide"><div style="min-width:{least}px">{svg}</div></div>'


def card(view: np.ndarray, truth: str, name: str, bars: list[tuple[str, float, bool]]) -> str:
    """An image (H, W, C) uint8 and bars: (class, probability, whether it is the true one)."""
    file = io.BytesIO()
    Image.fromarray(view[..., 0] if view.shape[2] == 1 else view).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    made = "".join(
        f'<div class="bar{" true" * true}" style="--p:{100 * p:.1f}%"><span>{_text(word)}</span>'
        f"<span>{100 * p:.0f} %</span></div>"
        for word, p, true in bars
    )
    return (
        f'<div class="card"><h3>{_text(truth)}<small>{_text(name)}</small></h3>'
        f'<img alt="{_text(truth)}" src="data:image/png;base64,{data}">{made}</div>'
    )


def _text(name: str) -> str:
    return escape(style.short(name, 60))


def cfg(name: str, text: str) -> str:
    """A file with the numbers of its lines."""
    lines = text.splitlines()
    made = "\n".join(f"<i>{number}</i>{escape(line)}" for number, line in enumerate(lines, 1))
    return f"<details><summary>{escape(name)}</summary><pre>{made}</pre></details>"
