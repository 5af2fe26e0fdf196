"""From the start of a process to the end of its first training step, the first time and later.

    python benchmarks/start.py
    python benchmarks/start.py --layer-def=layer_configs/cifar10.cfg --classes=10 --batch=128

The first start finds no compiled kernels: NUMBA_CACHE_DIR is an empty folder. The others find what
it has left there; their median counts. `ready` is when Python, the libraries and the net with its
first weights are there, before the step.
"""

import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from convnet import benchtable, cli, machine, options
from convnet.process import THREADS


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_job(parser)
    parser.add_argument("--batch", type=options.positive, default=32, metavar="N",
                        help="images in the batch (default: 32)")  # fmt: skip
    parser.add_argument("--step", action="store_true", help="take the step here, in this process")
    parser.set_defaults(layer_def="layer_configs/spp_zf5.cfg", classes=1000)
    return parser.parse_args()


def step(args) -> None:
    """Build the net, say so, train on one batch, say so."""
    from convnet.ahead import compile_kernels
    from convnet.engine import Ours
    from convnet.net import Net

    job = benchtable.job_of(args, "train", args.batch)
    graph = job.graph()
    engine, batch = Ours(Net(graph, seed=job.seed), job.threads), job.noise(graph)
    print("ready", flush=True)
    compile_kernels(engine.net, args.batch, lambda line: print(line, file=sys.stderr))
    engine.train(*batch)
    print("trained", flush=True)


def start(folder: str, threads: int) -> dict:
    """Seconds until a new process says that it is ready, and that it has trained."""
    argv = [sys.executable, *sys.argv, "--step"]
    home = os.pathsep.join([str(machine.HOME), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPATH": home}
    env |= dict.fromkeys(THREADS, str(threads))
    began, found = time.perf_counter(), {}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            found[line.strip()] = time.perf_counter() - began
    if "trained" not in found:
        raise cli.UsageError(f"the process ended with {process.returncode}; its error is above")
    return found


def main() -> None:
    """Measure, tell, write."""
    args = arguments()
    if args.step:
        step(args)
        return
    job = benchtable.job_of(args, "train", args.batch)
    print(benchtable.where_line())
    print(benchtable.job_line(job, job.graph()))
    with tempfile.TemporaryDirectory() as folder:
        starts = [start(folder, job.threads) for _ in range(args.rounds + 1)]
    second = {word: median(found[word] for found in starts[1:]) for word in starts[0]}
    for name, found in {"first": starts[0], "second": second}.items():
        print(f"{name:6} start: ready after {found['ready']:6.2f} s, "
              f"first step done after {found['trained']:6.2f} s")  # fmt: skip
    if args.json:
        benchtable.write(args.json, vars(args), starts=starts, first=starts[0], second=second)


if __name__ == "__main__":
    cli.run(main)
