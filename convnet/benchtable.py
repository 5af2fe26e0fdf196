"""What tools/bench.py does with its options: check, measure, print tables, write JSON."""

import importlib.util
import json
import sys
from datetime import date
from pathlib import Path

from convnet import bench, machine
from convnet.bench import (
    layer_seconds,
    part_seconds,
    rest_seconds,
    step_seconds,
    watched_seconds,
)
from convnet.cli import UsageError, check_target
from convnet.device import check as check_device
from convnet.engine import engine_class
from convnet.graph import Graph, dims
from convnet.job import Job
from convnet.summary import columns

INSTALL = "not installed here; `make peer` does it: then .venv-peer/bin/python {}"
RATES = [f"{way} {unit}" for unit in ("GFLOP/s", "GB/s") for way in ("fwd", "bwd")]
HEAD = ["layer", "ms", "of step", "fwd ms", "bwd ms", *RATES, "kernels"]
LEFT = (0, 9)  # columns of text


def bench_net(args) -> int:
    """tools/bench.py"""
    job, graph = _checked(args)
    print(where_line())
    print(job_line(job, graph))
    engines = ["ours", args.compare] if args.compare else ["ours"]
    found = bench.measure(engines, job, args.rounds, say)
    print()
    print(layers_table(found["ours"], job.batch))
    if args.compare:
        print()
        print(compare_table(found["ours"], found[args.compare], job.batch))
    if args.json:
        write(args.json, vars(args), engines=found)
    return 0


def where_line() -> str:
    """The machine in a line."""
    where = machine.describe()
    return f"{where['cpu']}, {where['cores']} cores, {where['system']}, Python {where['python']}"


def job_line(job: Job, graph: Graph) -> str:
    """What is measured in a line."""
    what = "training" if job.mode == "train" else "inference"
    what += f" up to {job.wanted(graph)[0]}" if job.upto else ""
    image = dims(job.shapes(graph)[graph.feeds[0]])
    threads = f"{job.threads} thread{'s' if job.threads > 1 else ''}"
    return f"{job.layer_def}: {what}, batch {job.batch} of {image}, {job.device}, {threads}"


def _checked(args) -> tuple[Job, Graph]:
    """The job, if everything that can be known before is well."""
    if args.upto and args.mode != "infer":
        raise UsageError(f"--upto={args.upto}: goes with --mode=infer")
    check_engines([args.compare] if args.compare else [], f"--compare={args.compare}")
    job = job_of(args, args.mode, args.batch, args.device)
    return job, job.graph()


def say(text: str) -> None:
    """A line at once, also into a pipe: what follows may take a minute."""
    print(text, flush=True)


def check_engines(names: list[str], option: str) -> None:
    """UsageError where what an engine needs is not installed."""
    for name in names:
        needs, how = engine_class(name).needs, INSTALL.format(sys.argv[0])
        if needs and not importlib.util.find_spec(needs):
            raise UsageError(f"{option}: {engine_class(name).title} is {how}")


def job_of(args, mode: str, batch: int, device: str = "cpu") -> Job:
    """The job of a command line with options.add_net and options.add_job. Raises UsageError."""
    if not args.layer_def:
        raise UsageError("--layer-def=FILE.cfg is needed")
    if args.json:
        check_target(args.json, "--json")
    check_device(device)
    threads = args.threads or machine.threads()
    if threads > machine.cores():
        raise UsageError(f"--threads={threads}: this process may use {machine.cores()} cores")
    net = args.layer_def, args.layer_params, tuple(args.set), args.classes, args.size
    upto = args.upto if mode == "infer" else None
    return Job(*net, batch, mode, upto, threads, device, args.seed, args.seconds)


def write(path: str, arguments: dict, **figures) -> None:
    """All of it as JSON."""
    told = {
        "command": " ".join(["python", *sys.argv]),
        "arguments": arguments,
        "date": date.today().isoformat(),
        "machine": machine.describe(),
        **figures,
    }
    try:
        Path(path).write_text(json.dumps(told, indent=1) + "\n")
    except OSError as e:
        raise UsageError(f"--json={path}: cannot be written, {e.strerror.lower()}") from None


def layers_table(ours: dict, cases: int) -> str:
    """Each layer of one engine, then what is left of the step."""
    step, watched, rows = step_seconds(ours), watched_seconds(ours), []
    for w in ours["work"]:
        first, *others = w["layers"]
        times = layer_seconds(ours, [first])
        rates = [_rate(of, t) for kind in ("flops", "bytes") for of, t in zip(w[kind], times)]
        kernels = f"{w['variant']}: {w['why']}"
        rows.append([first, *_part(sum(times), watched), *map(_ms, times), *rates, kernels])
        rows += [[name, *[""] * 8, f"with {first}"] for name in others]
    for name in ours["rounds"][0]["parts"]:
        rows.append([name, *_part(part_seconds(ours, name), watched), *[""] * 7])
    rows.append(["the rest", *_part(rest_seconds(ours), watched), *[""] * 7])
    lines = columns([HEAD, *rows], LEFT)
    flops = sum(sum(w["flops"]) for w in ours["work"])
    total = (
        f"total {_ms(step)} ms, {cases / step:.1f} images/s, {flops / step / 1e9:.0f} GFLOP/s; "
        f"peak of memory {ours['peak'] / 2**20:.0f} MiB"
    )
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], total])


def compare_table(ours: dict, theirs: dict, cases: int) -> str:
    """Forward and backward of each layer here and there; what a pass does at once, together."""
    name, rows = theirs["title"], []
    for w in ours["work"]:
        mine, other = sum(layer_seconds(ours, w["layers"])), sum(layer_seconds(theirs, w["layers"]))
        rows.append(["+".join(w["layers"]), _ms(mine), _ms(other), _ratio(other, mine)])
    for part in ours["rounds"][0]["parts"]:
        mine, other = part_seconds(ours, part), part_seconds(theirs, part)
        rows += [[part, _ms(mine), _ms(other), _ratio(other, mine)]] if mine or other else []
    mine, other = step_seconds(ours), step_seconds(theirs)
    rows.append(["step", _ms(mine), _ms(other), _ratio(other, mine)])
    rows.append(["images/s", f"{cases / mine:.1f}", f"{cases / other:.1f}", ""])
    peaks = [e["peak"] / 2**20 for e in (ours, theirs)]
    rows.append(["peak MiB", *(f"{peak:.0f}" for peak in peaks), f"{peaks[0] / peaks[1]:.2f}"])
    lines = columns([["layer", "convnet ms", f"{name} ms", "times as fast"], *rows], [0])
    trials = ", ".join(f"{k} {1e3 * t:.1f} ms" for k, t in theirs["trials"].items())
    lines.append(f"{theirs['version']} with {theirs['setting']}, the fastest of: {trials}")
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds else "-"


def _part(seconds: float, step: float) -> list[str]:
    return [_ms(seconds), f"{seconds / step:.1%}"]


def _rate(count: int, seconds: float) -> str:
    """Billions a second."""
    return f"{count / seconds / 1e9:.1f}" if count and seconds else "-"


def _ratio(theirs: float, mine: float) -> str:
    return f"{theirs / mine:.2f}" if theirs and mine else "-"
