"""What a command line of tools/show.py names: a run, its data, a layer, the file to write."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet import given
from convnet.checkpoint import CheckpointError
from convnet.cli import UsageError, check_target
from convnet.given import Trained
from convnet.net import Net
from convnet.providers import BadImage, DataError, Provider
from convnet.providers._decode import decode, pixels
from convnet.results import lines_of
from convnet.runfolder import last_written
from convnet.work import needed

STRANGE = r'[/\\:*?"<>|\x00-\x1f]'  # what some system has in no name of a file
NO_LOG = "no metrics.jsonl there; is it a run of tools/train.py?"


def target(args, folder: Path, name: str, kinds: Sequence[str]) -> Path:
    """Where the picture goes: --out, or `name` in this folder. UsageError where it cannot."""
    path = Path(args.out) if args.out else folder / re.sub(STRANGE, "_", name)
    check_target(str(path), "--out", kinds=kinds)
    return path


def folder_of(run: str) -> Path:
    """The folder of a run with its metrics.jsonl: the run's own, or the newest in a folder of runs.

    Raises CheckpointError.
    """
    path = Path(run)
    if not path.exists():
        raise CheckpointError(f"{run}: no such file or folder; train a net first")
    folder = path if path.is_dir() else path.parent
    if (folder / "metrics.jsonl").is_file():
        return folder
    found = [file for file in folder.glob("*/metrics.jsonl") if file.is_file()]
    if not path.is_dir() or not found:
        raise CheckpointError(f"{run}: {NO_LOG}")
    return last_written(found).parent


def metrics(folder: Path) -> Iterator[dict]:
    """The rows of metrics.jsonl; a torn last line, of a run that goes on, is left out.

    Raises CheckpointError, at the end where no batch is told of.
    """
    path, told = folder / "metrics.jsonl", False
    if not path.is_file():
        raise CheckpointError(f"{folder}: {NO_LOG}")
    with path.open("rb") as file:
        for number, _, row in lines_of(file):
            if isinstance(row, str):
                raise CheckpointError(
                    f"{path}:{number}: {row}, so is no row of a run; delete this line"
                )
            told |= "test" not in row
            yield row
    if not told:
        raise CheckpointError(f"{path}: tells of no batch yet")


class Seen(NamedTuple):
    """Some test images, and what layers make of them."""

    indices: np.ndarray  # (n,) in the test set
    views: list[np.ndarray]  # uint8 (H, W, C), what the net was shown
    outputs: list[np.ndarray]  # (n, H, W, C) of each layer asked for


def seen(net: Net, provider: Provider, indices, layers: list[list[str]]) -> Iterator[Seen]:
    """Test images by their numbers, some at a time, at their centre. Bad ones are left out."""
    look, waiting, batch = net.look("centre"), [], 32

    def flush() -> Seen:
        numbers, cuts = zip(*waiting)
        waiting.clear()
        return Seen(np.array(numbers), list(cuts), net.show(cuts, layers))

    which = [("test", int(i)) for i in indices]
    for position, views in provider.seen(which, look):
        waiting.append((which[position][1], views[0]))
        if len(waiting) == batch:
            yield flush()
    if waiting:
        yield flush()


def layer(net: Net, name: str, option: str = "--layer") -> str:
    """The layer that a user means by a name; UsageError with the nearest."""
    try:
        return net.graph.resolve(name)
    except ValueError as e:
        raise UsageError(f"{option}={name}: {e}") from None


def data(args, run: Trained) -> Provider:
    """The test images of a run. DataError where they are not where they were."""
    try:
        provider = given.data_of(args, run)
    except DataError as e:
        hint = "; --data-path=DIR says where the images of the run are now"
        known = args.data_path or str(e).startswith("--")  # an option is at fault, no place
        raise DataError(f"{e}{'' if known else hint}") from None
    if not provider.test.size:
        provider.close()
        raise UsageError(f"{run.path}: its data has no test images")
    return provider


def map_layer(net: Net, name: str) -> str:
    """The layer of a name, if its output is maps. UsageError with the ones that have some."""
    found = layer(net, name)
    if not net.by_name[found].reads:
        raise UsageError(f"--layer={name}: is what the net is given, no map that it makes")
    if net.graph.shapes[found][:2] == (1, 1):
        having = ", ".join(name for name in maps_of(net))
        numbers = net.graph.shapes[found][2]
        raise UsageError(f"--layer={name}: gives {numbers} numbers, no maps; {having} give maps")
    return found


def maps_of(net: Net) -> list[str]:
    """The names, as users call them, of the layers that make maps of the image, in order."""
    graph = net.graph
    return [
        name
        for name, own in graph.alias.items()
        if graph.by_name[own].reads
        and graph.shapes[own][:2] != (1, 1)
        and graph.feeds.get(1) not in graph.by_name[own].reads
    ]


def last_map(net: Net) -> str:
    """The map that the first pyramid reads, else the last. UsageError where there is none.

    Of those that the prediction is made of, so none of an auxiliary classifier.
    """
    used = needed(net.graph, [net.output])
    made = [l for l in net.layers if l.name in used and l.reads and net.by_name[l.reads[0]].reads]
    pyramid = next((l.reads[0] for l in made if l.bins()), None)
    found = [name for name in maps_of(net) if net.graph.alias[name] in used]
    found = [called(net, pyramid)] if pyramid else found
    if not found:
        raise UsageError("no layer of this net makes maps")
    return found[-1]


def called(net: Net, own: str) -> str:
    """What users call a layer: conv1 is the name of conv1_neuron as well."""
    return next((name for name, made in net.graph.alias.items() if made == own), own)


def image(net: Net, path: str) -> np.ndarray:
    """A picture in a file as the net takes it, uint8 (H, W, channels). DataError."""
    if not Path(path).is_file():
        raise DataError(f"{path}: {'is no file' if Path(path).exists() else 'no such file'}")
    try:
        return pixels(decode(path, net.graph.shapes[net.graph.feeds[0]][2])[0])
    except BadImage as e:
        raise DataError(f"{path}: {e}") from None
