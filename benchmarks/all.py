"""All that is said about speed, measured again: `make bench`, or some parts of it.

    python benchmarks/all.py --list
    python benchmarks/all.py --only=train32,infer1
    python benchmarks/all.py --only=none            # only write the table again

Each part is a script of its own in a process of its own. What it finds is kept, with its command,
date, machine and commit, in benchmarks/results.json until it is measured again on such a processor,
and the figures of docs/performance.md, a table for each processor, are written from there.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from convnet import cli, machine, options
from convnet.bench import step_seconds
from convnet.summary import columns

HERE = Path(__file__).resolve().parent
MARKS = "<!-- figures: begin -->", "<!-- figures: end -->"
STEP = "benchmarks/step.py --engine="
ALL, BOTH = "ours,torch,onnx", "ours,torch"
PARTS = {
    "train32": f"{STEP}{BOTH} --mode=train --batch=32",
    "train128": f"{STEP}{BOTH} --mode=train --batch=128",
    "train50": f"{STEP}{BOTH} --mode=train --batch=32 --layer-def=layer_configs/spp_zf5_6321.cfg",
    "infer1": f"{STEP}{ALL} --mode=infer --batch=1",
    "infer32": f"{STEP}{ALL} --mode=infer --batch=32",
    "trunk": f"{STEP}{ALL} --mode=infer --batch=1 --upto=conv5 --size=688x917",
    "overfeat7": f"{STEP}{BOTH} --mode=train --batch=16 "
    "--layer-def=layer_configs/spp_overfeat7.cfg",
    "vgg16": f"{STEP}{BOTH} --mode=train --batch=16 --layer-def=layer_configs/vgg16.cfg "
    "--set=DEFAULT.epsW=0.0001 --set=DEFAULT.epsB=0.0001",  # noise makes it diverge otherwise
    "cifar10": f"{STEP}{BOTH} --mode=train --batch=128 --layer-def=layer_configs/cifar10.cfg "
    "--classes=10",
    "start": "benchmarks/start.py",
    "decode": "benchmarks/decode.py",
}  # fmt: skip


class Found(NamedTuple):
    """A figure, and what it comes from on both sides."""

    figure: float
    ours: str
    theirs: str = ""


class Row(NamedTuple):
    """A line of the table: what it says, the part it comes from, how it is read from its JSON.

    least, reach: what the figure should be at least and might become; None where nothing is asked.
    less: whether a smaller figure is better, so that `least` is a most.
    """

    what: str
    part: str
    read: Callable[[dict], Found]
    unit: str = "x"
    least: float | None = None
    reach: float | None = None
    less: bool = False

    def verdict(self, figure: float) -> str:
        """What a figure is next to what was asked for."""
        sign = -1 if self.less else 1
        if self.least is None or sign * figure < sign * self.least:
            return "" if self.least is None else "missed"
        return "reached" if sign * figure >= sign * self.reach else "met"


def speed(figures: dict) -> Found:
    """How many times as fast as the faster of the others."""
    ours, others = engines(figures)
    best = min(others, key=step_seconds)
    return Found(step_seconds(best) / step_seconds(ours), ms(ours), ms(best))


def memory(figures: dict) -> Found:
    """The share of PyTorch's peak of memory."""
    ours, (torch, *_) = engines(figures)
    both = (f"{engine['peak'] / 1e6:.0f} MB" for engine in (ours, torch))
    return Found(ours["peak"] / torch["peak"], *both)


def share(kind: str) -> Callable[[dict], Found]:
    """The share of a bound, for a reader of rows."""

    def read(figures: dict) -> Found:
        case, ours = figures["cases"][0], engines(figures)[0]
        bound, rate = case["bound"][kind], case["sgemm"] / 1e9
        theirs = f"{1e3 * bound:.0f} ms at {rate:.0f} GFLOP/s"
        return Found(100 * bound / step_seconds(ours), ms(ours), theirs)

    return read


def seconds(which: str) -> Callable[[dict], Found]:
    """To the end of the first step."""
    return lambda figures: Found(
        figures[which]["trained"], f"ready after {figures[which]['ready']:.1f} s"
    )


def decode(figures: dict) -> Found:
    """Views a second, here and there."""
    here, there = (f"{figures[who]:.0f} views/s" for who in ("ours", "peer"))
    return Found(figures["ratio"], here, there)


def engines(figures: dict) -> tuple[dict, list[dict]]:
    """Ours and the others of the only case."""
    found = figures["cases"][0]["engines"]
    return found["ours"], [engine for name, engine in found.items() if name != "ours"]


def ms(engine: dict) -> str:
    """The time of a step of an engine, in words."""
    setting = f" ({engine['setting']})" if engine["setting"] else ""
    name = "" if engine["title"] == "convnet" else f"{engine['title']}{setting} "
    return f"{name}{1e3 * step_seconds(engine):.1f} ms"


ZF5 = "SPP-ZF5"
TABLE = [
    Row(f"{ZF5}, a training step, batch 32", "train32", speed, least=4, reach=6),
    Row(f"{ZF5}, a training step, batch 128", "train128", speed, least=4, reach=6),
    Row(f"{ZF5} with 6,3,2,1 (50 bins), training, batch 32", "train50", speed, least=4, reach=6),
    Row(f"{ZF5}, inference, 1 image", "infer1", speed, least=1.8, reach=2.5),
    Row(f"{ZF5}, inference, batch 32", "infer32", speed, least=2.2, reach=3.5),
    Row(
        f"{ZF5}, up to conv5, a 688x917 image",
        "trunk",
        speed,
        least=2.5,
        reach=4,
    ),
    Row("Overfeat-7 with a pyramid, training, batch 16", "overfeat7", speed, least=2, reach=3),
    Row("VGG-16, training, batch 16", "vgg16", speed, least=2, reach=3),
    Row("cifar10.cfg, training, batch 128", "cifar10", speed, least=2, reach=3),
    Row(f"{ZF5}, batch 32, of the bound of direct arithmetic", "train32", share("direct"), "%"),
    Row(
        f"{ZF5}, batch 32, of the bound of what is multiplied",
        "train32",
        share("done"),
        "%",
        least=60,
        reach=80,
    ),
    Row(
        f"{ZF5}, batch 32, peak memory next to PyTorch",
        "train32",
        memory,
        less=True,
        least=0.6,
        reach=0.45,
    ),
    Row(
        f"{ZF5}, batch 128, peak memory next to PyTorch",
        "train128",
        memory,
        less=True,
        least=0.6,
        reach=0.45,
    ),
    Row(
        "the first start ever, to the end of a step",
        "start",
        seconds("first"),
        "s",
        less=True,
        least=60,
        reach=20,
    ),
    Row("a later start", "start", seconds("second"), "s", least=5, reach=2, less=True),
    Row("decoding views", "decode", decode, least=1, reach=1.5),
]


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument("--only", metavar="PARTS",
                        help="parts with commas, or none (default: all)")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="the parts and their commands")
    parser.add_argument("--rounds", type=options.positive, default=5, metavar="N",
                        help="of each part but decode (default: 5)")  # fmt: skip
    parser.add_argument("--results", type=Path, default=HERE / "results.json", metavar="FILE",
                        help="what is kept (default: benchmarks/results.json)")  # fmt: skip
    parser.add_argument("--page", type=Path, default=machine.HOME / "docs" / "performance.md",
                        metavar="FILE",
                        help="where the table goes (default: docs/performance.md)")  # fmt: skip
    return parser.parse_args()


def measure(part: str, rounds: int) -> dict | None:
    """Run a part; what is to be kept of it, None if it failed."""
    command = PARTS[part] + ("" if part == "decode" else f" --rounds={rounds}")
    print(f"\n{part}: python {command}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        argv = [sys.executable, *shlex.split(command), f"--json={out}"]
        if subprocess.run(argv, cwd=machine.HOME).returncode or not out.exists():
            return None
        figures = json.loads(out.read_text())
    rows = {row.what: row.read(figures)._asdict() for row in TABLE if row.part == part}
    found = figures.get("cases", [{}])[0].get("engines", {})
    return {
        "command": f"python {command}",
        "date": date.today().isoformat(),
        "machine": machine.describe(),
        "versions": [engine["version"] for engine in found.values()],
        "rows": rows,
    }


def text(results: dict) -> str:
    """A table for each processor."""
    return "\n\n".join(table(cpu, parts) for cpu, parts in results.items())


def table(cpu: str, results: dict) -> str:
    """The table of a processor, and where its figures come from."""
    rows = [["", "at least", "reach for", "measured", "", "ours", "theirs"]]
    for row in TABLE:
        found = results.get(row.part, {}).get("rows", {}).get(row.what)
        told = [""] * 4
        if found:
            figure = amount(found["figure"], row.unit)
            told = [figure, row.verdict(found["figure"]), found["ours"], found["theirs"]]
        sign = "<= " if row.less else ""
        asked = [f"{sign}{amount(x, row.unit)}" if x else "" for x in (row.least, row.reach)]
        rows.append([row.what, *asked, *told])
    lines = [cpu, "", *columns(rows, [0])]
    for part, found in results.items():
        where = found["machine"]
        lines += [
            "",
            f"{part}: {found['date']}, commit {where['commit']}, {where['cores']} cores, "
            f"{where['system']}",
            ", ".join(["Python " + where["python"], *found["versions"]]),
            f"$ {found['command']}",
        ]
    return "\n".join(f"    {line}" if line else "" for line in lines)


def amount(figure: float, unit: str) -> str:
    """A figure with its unit."""
    return f"{figure:.{0 if unit == '%' else 1 if unit == 's' else 2}f} {unit}"


def rewrite(page: Path, table: str) -> None:
    """Put the table between the two marks of a page."""
    begin, end = MARKS
    head, found, rest = (page.read_text() if page.is_file() else "").partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise cli.UsageError(f"{page}: has no lines {begin} and {end} for the figures")
    page.write_text(f"{head}{begin}\n\n{table}\n\n{end}{tail}")


def main() -> int:
    """Measure part by part; keep and tell what is known so far."""
    args = arguments()
    if args.list:
        print("\n".join(f"{part:10} python {command}" for part, command in PARTS.items()))
        return 0
    asked = list(PARTS) if args.only is None else args.only.split(",")
    asked = [] if asked == ["none"] else asked
    if strange := [part for part in asked if part not in PARTS]:
        raise cli.UsageError(f"--only={strange[0]}: must be none, or of {', '.join(PARTS)}")
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    failed = []
    for part in asked:
        found = measure(part, args.rounds)
        if found is None:
            failed.append(part)
            continue
        here = results.setdefault(found["machine"]["cpu"], {})
        here[part] = found
        results[found["machine"]["cpu"]] = {p: here[p] for p in PARTS if p in here}
        args.results.write_text(json.dumps(results, indent=1) + "\n")
        rewrite(args.page, text(results))
    rewrite(args.page, text(results))
    print(text(results))
    if failed:
        print(f"failed: {', '.join(failed)}; figures of before are kept", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
