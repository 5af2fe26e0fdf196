"""The paper's comparisons on CIFAR-10: pyramid or none, one size or several, views, several nets.

python benchmarks/classification.py --data-path=cifar10/ --runs=runs/classification
python benchmarks/classification.py --data-path=cifar10/ --runs=runs/recipes --part=recipes

views    cifar10_nospp.cfg and cifar10_spp.cfg, the latter at one size, at two in turn, at sizes
         drawn from a range, and without the padding of its convolutions; each with several seeds.
         Each net is tested with one view, with ten of images and of maps, with 96+2 and the whole
         image; then the mean of the nets of all seeds.
recipes  cuda-convnet's own: 26 % in 10 epochs, 18 % in 140 (cifar10_26pct.cfg, cifar10_18pct.cfg).

A run that is there already goes on where it stopped; what was predicted is kept in its folder.
Printed are mean and standard deviation (n - 1) of the test error over the seeds, in percent.
"""

import csv
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from convnet import cli, machine, options, runfolder
from convnet.cli import UsageError

# Its map in front of the pyramid is 3x3, and what a view sees ends at the view's border.
UNPADDED = [*(f"--set=conv{i}.padding=0" for i in range(1, 6)), "--set=spp.levels=3,2,1"]
NETS = {
    "no SPP": ["cifar10_nospp"],
    "SPP, one size": ["cifar10_spp"],
    "SPP, 32 and 24": ["cifar10_spp", "--sizes=32,24"],
    "SPP, 24 to 32": ["cifar10_spp", "--sizes=24:32"],
    "SPP, no padding": ["cifar10_spp", *UNPADDED],
}
VIEWS = {
    "1 view": [],
    "10 of images": ["--multiview=10", "--views-of=images"],
    "10 of maps": ["--multiview=10"],
    "96+2": ["--multiview=96+2"],
    "whole": ["--multiview=full"],
}
OF_MAPS = ("10 of maps", "96+2", "whole")
PLAIN = ["--minibatch=128", "--crop=centre", "--mirror=no", "--color-noise=0"]
# (cfg, epochs at each rate, epsW, epsB of the first)
RECIPES = {"26 %": ("cifar10_26pct", (8, 10)), "18 %": ("cifar10_18pct", (120, 130, 140))}


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument("--data-path", required=True, metavar="DIR", help="CIFAR-10")
    parser.add_argument(
        "--runs", type=Path, required=True, metavar="DIR", help="folder of the runs"
    )
    parser.add_argument("--part", choices=("views", "recipes"), default="views")
    parser.add_argument("--only", metavar="NAME", help="one row: 'SPP, one size', '26 %%' ...")
    parser.add_argument("--seeds", type=options.positive, default=3, metavar="N")
    parser.add_argument("--epochs", type=options.positive, default=12, metavar="N")
    parser.add_argument("--minibatch", type=options.positive, default=64, metavar="N")
    parser.add_argument("--jobs", type=options.positive, default=1, metavar="N", help="at a time")
    options.add_device(parser)
    return parser.parse_args()


def tool(name: str, *more: str) -> str:
    """What a tool prints. UsageError with its last line where it fails."""
    command = [sys.executable, str(machine.HOME / "tools" / f"{name}.py"), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine.HOME)
    if done.returncode:
        raise UsageError(f"{' '.join(command[1:])}: {done.stderr.strip()[-500:]}")
    return done.stdout


def error(labels: np.ndarray, probs: np.ndarray) -> float:
    """Test error in percent."""
    return 100 * (probs.argmax(1) != labels).mean()


class Bench:
    """The runs in a folder, each trained once, and their test errors."""

    def __init__(self, args):
        self.args, self.common = args, [f"--device={args.device}"]

    def train(self, folder: Path, cfg: str, seed: int, epochs: int, *more: str) -> Path:
        """The folder of a run, trained for so many epochs."""
        common = [f"--epochs={epochs}", *self.common]
        if list(folder.glob("*.h5")):
            tool("train", f"--resume={folder}", *common, *[m for m in more if "--set" in m])
        else:
            path = machine.HOME / "layer_configs" / f"{cfg}.cfg"
            data = f"--data-path={Path(self.args.data_path).resolve()}"
            tool("train", f"--layer-def={path}", data, f"--seed={seed}", f"--save-path={folder}",
                 *common, *more)  # fmt: skip
        return folder

    def probs(self, folder: Path, view: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities of the test images, by some views."""
        newest = runfolder.newest(folder)
        path = folder / f"{newest.stem} {view}.csv"
        if not path.exists():
            given = f"--predictions={path}", "--minibatch=128"
            tool("test", newest, *given, *self.common, *VIEWS[view])
        with path.open(newline="") as file:
            head, *rows = csv.reader(file)
        labels = np.array([head.index(row[1]) - 3 for row in rows])
        return labels, np.array([row[3:] for row in rows], np.float64)

    def all(self, jobs: list) -> list:
        """Results of calls, so many at a time."""
        with ThreadPoolExecutor(self.args.jobs) as pool:
            return list(pool.map(lambda job: job(), jobs))

    def chosen(self, rows: dict) -> list[str]:
        """The rows of a table that are asked for. UsageError where it has no such row."""
        if self.args.only not in (None, *rows):
            raise UsageError(f"--only={self.args.only}: it is one of {', '.join(rows)}")
        return [self.args.only] if self.args.only else list(rows)

    def views(self) -> None:
        """The table of nets and views."""
        a, nets, seeds = self.args, self.chosen(NETS), range(self.args.seeds)
        more = ["--color-noise=0", f"--minibatch={a.minibatch}"]
        at = {(n, s): (a.runs / f"{re.sub(r'[^a-z0-9]+', '_', n.lower())}_{s}").resolve()
              for n in nets for s in seeds}  # fmt: skip
        self.all([
            lambda n=n, s=s: self.train(at[n, s], NETS[n][0], s, a.epochs, *NETS[n][1:], *more)
            for n, s in at
        ])  # fmt: skip
        pairs = [(n, v) for n in nets for v in VIEWS if n != "no SPP" or v not in OF_MAPS]
        jobs = [(n, v, s) for n, v in pairs for s in seeds]
        made = self.all([lambda n=n, v=v, s=s: self.probs(at[n, s], v) for n, v, s in jobs])
        made = dict(zip(jobs, made))
        found = {(n, v, (s,)): error(*made[n, v, s]) for n, v, s in jobs}
        for n, v in pairs:
            mean = np.mean([made[n, v, s][1] for s in seeds], axis=0)
            found[n, v, tuple(seeds)] = error(made[n, v, 0][0], mean)
        print(f"{'':16}" + "".join(f"{v:>15}" for v in VIEWS))
        for n in nets:
            here = [v for v in VIEWS if (n, v) in pairs]
            each = {v: [found[n, v, (s,)] for s in seeds] for v in here}
            cells = {v: f"{np.mean(e):.2f} +- {np.std(e, ddof=1):.2f}" for v, e in each.items()}
            print(f"{n:16}" + "".join(f"{cells.get(v, '-'):>15}" for v in VIEWS))
            cells = {v: f"{found[n, v, tuple(seeds)]:.2f}" for v in here}
            print(
                f"{f'  mean of {a.seeds}':16}" + "".join(f"{cells.get(v, '-'):>15}" for v in VIEWS)
            )
            for s in seeds:
                cells = {v: f"{found[n, v, (s,)]:.2f}" for v in here}
                print(f"{f'  seed {s}':16}" + "".join(f"{cells.get(v, '-'):>15}" for v in VIEWS))

    def recipe(self, name: str, seed: int) -> list[float]:
        """The test errors at the end of each rate, as the run wrote them down."""
        cfg, stops = RECIPES[name]
        folder = (self.args.runs / f"{cfg}_{seed}").resolve()
        for i, epochs in enumerate(stops):
            rates = [
                f"--set=DEFAULT.epsW={0.001 / 10**i:g}",
                f"--set=DEFAULT.epsB={0.002 / 10**i:g}",
            ]
            self.train(folder, cfg, seed, epochs, *PLAIN, *(rates if i else []))
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        found = {row["epoch"]: 100 * row["test"]["logprob.error"] for row in rows if "test" in row}
        return [found[epochs] for epochs in stops]

    def recipes(self) -> None:
        """cuda-convnet's published errors, and ours."""
        names = self.chosen(RECIPES)
        jobs = [(n, s) for n in names for s in range(self.args.seeds)]
        errors = self.all([lambda n=n, s=s: self.recipe(n, s) for n, s in jobs])
        for name in names:
            rows = np.array([e for (n, _), e in zip(jobs, errors) if n == name])
            sd = rows[:, -1].std(ddof=1) if len(rows) > 1 else 0.0
            print(f"published {name}: {rows[:, -1].mean():.2f} +- {sd:.2f} after "
                  f"{RECIPES[name][1][-1]} epochs")  # fmt: skip
            for s, row in enumerate(rows):
                steps = ", ".join(f"{e:.2f} after {n}" for e, n in zip(row, RECIPES[name][1]))
                print(f"  seed {s}: {steps}")


def main() -> int:
    """Train what is not trained yet, test, print."""
    args = arguments()
    args.runs.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    print(f"CIFAR-10 test error in %, {args.seeds} seeds, {args.device}; commit {machine.commit()}")
    bench.recipes() if args.part == "recipes" else bench.views()
    return 0


if __name__ == "__main__":
    cli.run(main, "--minibatch")
