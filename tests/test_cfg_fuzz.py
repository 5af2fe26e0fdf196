"""Spoiled cfgs, seeded: whatever stands in them, the answer is a net or notes with their place."""

import random
import re
import resource
from pathlib import Path

from convnet.cfg import CfgError, load_text
from convnet.registry import layer_class, types
from convnet.source import Source

CASES = 5000
CONFIGS = Path(__file__).parent.parent / "layer_configs"
NETS = [
    (load_text(path), load_text(path.with_name(f"{path.stem}-params.cfg")))
    for path in sorted(CONFIGS.glob("*.cfg"))
    if not re.search(r"-params$|_\d+$|googlenet", path.stem)  # nor what is long or much the same
]
TYPES = types()
KEYS = sorted({"type"}.union(*(layer_class(word).keys() for word in TYPES)))
# fmt: off
VALUES = [
    "", "0", "-1", "1", "2", "3", "7", "-5", "1,2,3", ",", ",,", "[", "]", "[]", "a[", "#",
    "; x", " ;x", "''", "\"\"", "true", "max", "avg", "classes", "%(x)s", "²", "１", "1_0",
    "0x10", "é", "\x1b[2J", "\u2028", "1e400", "nan", "-inf", "1e12", "1000000000000",
    "99999999999999999999", "999999", "relu", "tanh[1,0]", "tanh(1,2)",
    "dexp[base=1;tgtFactor=1e-320;numSteps=3]", "dexp[base=1;tgtFactor=2;numSteps=99999999]",
    "linear[base=nan;tgtFactor=1]", "exp[]", "conv1", "conv1[0]", "conv1[9]", "data", "labels",
    "probs", "data,data", "local", "../../x", "_bins", "cost", "cost.logreg", "spp", "DEFAULT",
    "init.uniform(-1)", "init.xavier(", "init.constant(nan)",
    "9" * 5000, "a" * 3000,
]
# fmt: on


def spoil(r: random.Random, text: str) -> str:
    """One to six changes of bytes, lines and values."""
    for _ in range(r.choice((1, 1, 1, 2, 3, 6))):
        rows = text.split("\n")
        i, j, kind = r.randrange(len(rows)), r.randrange(len(rows)), r.randrange(11)
        if kind == 0:
            del rows[i]
        elif kind == 1:
            rows.insert(j, rows[i])
        elif kind == 2:
            rows[i], rows[j] = rows[j], rows[i]
        elif kind in (3, 4):
            rows[i] = rows[i].split("=")[0] + "=" + r.choice(VALUES)
        elif kind == 5:
            rows.insert(i, r.choice(KEYS) + "=" + r.choice(VALUES))
        elif kind == 6:
            rows.insert(i, f"[{r.choice(VALUES)}]")
        elif kind == 7:
            rows[i] = r.choice((" ", "\t")) + rows[i]
        elif kind in (8, 9):
            rows[i : i + kind % 2] = ["type=" + r.choice(TYPES)]
        elif rows[i]:
            at = r.randrange(len(rows[i]))
            byte = chr(r.choice((r.randrange(256), *b"\n =[];#,")))
            rows[i] = rows[i][:at] + byte + rows[i][at + 1 :]
        text = "\n".join(rows)
    return text


def test_spoiled_cfgs():
    r, built, refused = random.Random(0), 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        text, params = r.choice(NETS)
        text = spoil(r, text) if r.random() < 0.8 else text
        params = spoil(r, params) if r.random() < 0.4 else params
        sets = [f"{r.choice(('conv1', 'x', 'DEFAULT'))}.{r.choice(KEYS)}={r.choice(VALUES)}"]
        source = Source("d.cfg", text, "p.cfg", params, tuple(sets) if r.random() < 0.1 else ())
        try:
            source.image_size()
            notes = source.graph(None, 10).remarks
            built += 1
        except CfgError as e:
            notes = e.notes
            refused += 1
            assert notes, case
        for note in map(str, notes):
            assert note.startswith(("d.cfg", "p.cfg", "--set ")), (case, note)
            assert note.isprintable(), (case, note)
            assert len(note) < 600, (case, note)
    assert built > CASES / 20, "too few are right: this tests little"
    assert refused > CASES / 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 << 10, "KiB"
