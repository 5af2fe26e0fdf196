"""Features of classes that a net has never seen: is a net of others' use, and which layer of it?

    python benchmarks/transfer.py --data=cifar10/ --runs=runs/transfer

Trains cifar10_spp.cfg on the first classes of a folder of classes, then takes what its layers make
of the test images of the other classes (tools/features.py) and tells these apart by linear SVMs, 30
images a class to train on and 50 to test with, ten draws (tools/svm_classify.py --caltech). Next to
it the same of a net with the weights that it began with, and of the pixels. A run that is there
already is not trained again. Printed are mean and standard deviation of the accuracy.
"""

import json
import subprocess
import sys
from pathlib import Path

from convnet import cli, machine, options
from convnet.cli import UsageError

LAYERS = {"data": "the pixels", "conv2": "conv2", "conv4": "conv4", "conv5": "conv5",
          "spp": "spp", "fc10": "fc10, before the softmax"}  # fmt: skip
VIEWS = {"": (), ", whole image at 48": ("--view=full", "--scale=48")}
OF_MAPS = ("spp", "fc10")  # layers that are of one length at any size of the image


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="train/<class>/ and test/<class>/, 32x32 pixels")  # fmt: skip
    parser.add_argument(
        "--runs", type=Path, required=True, metavar="DIR", help="for all that is made"
    )
    parser.add_argument("--seen", type=options.positive, default=6, metavar="N",
                        help="train on the first N classes (default: 6)")  # fmt: skip
    parser.add_argument(
        "--epochs", type=options.positive, default=8, metavar="N", help="(default: 8)"
    )
    parser.add_argument("--per-class", type=options.positive, default=30, metavar="N",
                        help="images of a class to train on (default: 30)")  # fmt: skip
    options.add_device(parser)
    return parser.parse_args()


def tool(name: str, *more) -> None:
    """Run a tool. UsageError with its last line where it fails."""
    command = [sys.executable, str(machine.HOME / "tools" / f"{name}.py"), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine.HOME)
    if done.returncode:
        raise UsageError(f"{' '.join(command[1:])}: {done.stderr.strip()[-500:]}")


def links(data: Path, classes: list[str], folder: Path) -> Path:
    """A folder with some of the classes."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in classes:
            link = folder / split / name
            if not link.is_symlink():
                link.symlink_to((data / split / name).resolve())
    return folder


def main() -> int:
    """Train what is not trained yet, take features, classify, print."""
    args = arguments()
    runs, device = args.runs.resolve(), f"--device={args.device}"
    classes = sorted(path.name for path in (args.data / "train").iterdir() if path.is_dir())
    if not 2 <= args.seen <= len(classes) - 2:
        raise UsageError(
            f"--seen={args.seen}: {args.data} has {len(classes)} classes; two at least must be on "
            "either side"
        )
    seen = links(args.data, classes[: args.seen], runs / "seen")
    held = links(args.data, classes[args.seen :], runs / "held_out")
    cfg = machine.HOME / "layer_configs" / "cifar10_spp.cfg"
    still = ("--set=DEFAULT.epsW=0", "--set=DEFAULT.epsB=0", "--epochs=1")
    nets = {"trained": (f"--epochs={args.epochs}",), "first weights": still}
    for name, more in nets.items():
        folder = runs / name.replace(" ", "_")
        if not list(folder.glob("*.h5")):
            tool("train", f"--layer-def={cfg}", f"--data-path={seen}", f"--save-path={folder}",
                 device, *more)  # fmt: skip
    print(
        f"{args.data}: {args.seen} classes seen for {args.epochs} epochs, "
        f"{len(classes) - args.seen} told apart, {args.per_class} images of each; "
        f"commit {machine.commit()}"
    )
    print(f"{'':40}" + "".join(f"{name:>18}" for name in nets))
    for view, options_of_view in VIEWS.items():
        for layer, words in LAYERS.items():
            if view and layer not in OF_MAPS:
                continue
            cells = []
            for name in nets:
                out, run = runs / "features.h5", runs / name.replace(" ", "_")
                tool("features", run, f"--data-path={held}", "--split=test", f"--layer={layer}",
                     f"--out={out}", device, *options_of_view)  # fmt: skip
                found = runs / "found.json"
                tool("svm_classify", f"--features={out}", "--caltech", f"--json={found}",
                     f"--per-class={args.per_class}")  # fmt: skip
                told = json.loads(found.read_text())
                cells.append(f"{told['mean']['accuracy']:.2f} +- {told['sd']['accuracy']:.2f}")
            print(f"{words + view:40}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main)
