"""Where the layers of a net go in a picture: rows from the images down, few crossings.

Sugiyama's way: ranks by the longest path, a dummy in each rank that an arrow passes, the order in a
rank by the mean place of the neighbours, places as near to theirs as the order allows.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT, DUMMY = 182, 58, 14  # of a box; width of what passes by
BESIDE, BELOW = 26, 34  # between boxes
SWEEPS = 12


class Placed(NamedTuple):
    """Centres of boxes {name: (x, y)}; arrows as the points that they pass; the whole size."""

    boxes: dict[str, tuple[float, float]]
    arrows: list[list[tuple[float, float]]]
    size: tuple[float, float]


def place(reads: dict[str, list[str]]) -> Placed:
    """Boxes that read others; the names in an order in which these come first."""
    rank = _ranks(reads)
    rows: list[list] = [[] for _ in range(max(rank.values()) + 1)]
    for name in reads:
        rows[rank[name]].append(name)
    chains = []  # of each arrow: a box, dummies, a box
    for name, ins in reads.items():
        for other in dict.fromkeys(ins):
            passed = [(other, name, r) for r in range(rank[other] + 1, rank[name])]
            for r, dummy in enumerate(passed, rank[other] + 1):
                rows[r].append(dummy)
            chains.append([other, *passed, name])
    up: dict = {node: [] for row in rows for node in row}
    down: dict = {node: [] for row in rows for node in row}
    for chain in chains:
        for a, b in pairwise(chain):
            down[a].append(b)
            up[b].append(a)
    x = _columns(rows, up, down)
    left = min(x[node] - _half(node) for node in x)
    y = {node: r * (HEIGHT + BELOW) + HEIGHT / 2 for r, row in enumerate(rows) for node in row}
    at = {node: (x[node] - left + BESIDE / 2, y[node] + BESIDE / 2) for node in x}
    wide = max(at[node][0] + _half(node) for node in x) + BESIDE / 2
    high = len(rows) * (HEIGHT + BELOW) - BELOW + BESIDE
    arrows = [_points(chain, at) for chain in chains]
    return Placed({name: at[name] for name in reads}, arrows, (wide, high))


def _ranks(reads: dict[str, list[str]]) -> dict[str, int]:
    """The row of each box: below all that it reads; what reads nothing just above its reader."""
    rank: dict[str, int] = {}
    for name, ins in reads.items():
        rank[name] = 1 + max((rank[other] for other in ins), default=-1)
    for name in (name for name, ins in reads.items() if not ins):
        below = [rank[other] for other, ins in reads.items() if name in ins]
        rank[name] = max(min(below, default=1) - 1, 0)
    return rank


def _half(node) -> float:
    return (WIDTH if isinstance(node, str) else DUMMY) / 2


def _columns(rows: list[list], up: dict, down: dict) -> dict:
    """The x of each node."""
    x = {}
    for row in rows:
        x |= dict(zip(row, _apart(row, np.zeros(len(row)))))
    for sweep in range(2 * SWEEPS):
        forward = sweep % 2 == 0
        near = up if forward else down
        for row in rows if forward else rows[::-1]:
            wish = {n: _mean([x[m] for m in near[n]], x[n]) for n in row}
            if sweep < SWEEPS:
                row.sort(key=lambda node: wish[node])
            x |= dict(zip(row, _apart(row, np.array([wish[node] for node in row]))))
    for row in rows:
        wish = [_mean([x[m] for m in (*up[n], *down[n])], x[n]) for n in row]
        x |= dict(zip(row, _apart(row, np.array(wish))))
    return x


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _apart(row: list, wish: np.ndarray) -> np.ndarray:
    """Places nearest to the wished ones (least squares) that keep the order and the distances."""
    halves = np.array([_half(node) for node in row])
    offset = np.concatenate([[0], np.cumsum(halves[:-1] + halves[1:] + BESIDE)])
    blocks: list[list[float]] = []  # pool adjacent violators: [sum, count]
    for value in wish - offset:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    return np.concatenate([np.full(n, total / n) for total, n in blocks]) + offset


def _points(chain: list, at: dict) -> list[tuple[float, float]]:
    """From the foot of the first box to the head of the last, through the dummies' rows."""
    points = [(at[chain[0]][0], at[chain[0]][1] + HEIGHT / 2)]
    for node in chain[1:-1]:
        x, y = at[node]
        points += [(x, y - HEIGHT / 2), (x, y + HEIGHT / 2)]
    return [*points, (at[chain[-1]][0], at[chain[-1]][1] - HEIGHT / 2)]
