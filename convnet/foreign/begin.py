"""First weights from a file: what tools/import.py makes a checkpoint of, and --init-from trains."""

from pathlib import Path

from convnet.cli import UsageError
from convnet.foreign import read
from convnet.foreign.found import Found, Input
from convnet.foreign.match import Match, match, put
from convnet.net import Net
from convnet.providers import printable


def first_weights(net: Net, name: str) -> Match:
    """Fill the layers of a net that a file has weights for, and print which these are.

    Raises WeightsError, CheckpointError.
    """
    found = read.read(name)
    found.input = usual(found, net.graph.shapes[net.graph.feeds[0]][2])
    return fill(net, found)


def fill(net: Net, found: Found, by_hand: dict[str, str] | None = None) -> Match:
    """Fill the layers of a net from what a file holds, and print which these are.

    by_hand: {layer of ours: layer of the file} that --map says; the rest is matched as without it.
    Raises WeightsError.
    """
    made = match(net.graph, found, by_hand)
    for note in [*found.notes, *(f"{lost}; left out" for lost in found.lost)]:
        print(f"note: {found.path}: {printable(note)}")
    print(
        f"{found.path}: of {found.format}, {len(found.layers)} layers with weights, matched "
        f"{made.how}; {len(made.filled)} of ours filled, {len(made.left)} left as initialised\n"
        f"{made.table()}"
    )
    put(net, made)
    return made


def usual(found: Found, channels: int) -> Input:
    """What nets of this format expect of pictures with so many channels."""
    return found.input if found.known or channels == 3 else Input()


def input_of(args, found: Found, channels: int) -> Input:
    """The same, with what --channels, --mean and --std say. Raises UsageError, WeightsError."""
    made = usual(found, channels)
    if args.channels:
        if args.channels == "bgr" and channels != 3:
            raise UsageError(f"--channels=bgr: the net takes images of {channels} channel")
        turned = made.bgr != (args.channels == "bgr") and channels == 3
        made = Input(args.channels == "bgr", *(_turned(v, turned) for v in made[1:]))
    if args.std:
        made = made._replace(std=_numbers("--std", args.std, channels, 1e-9))
    if args.mean and args.mean != "data":
        image = Path(args.mean).is_file()
        mean = read.mean_image(args.mean) if image else None
        made = made._replace(mean=_numbers("--mean", args.mean, channels) if mean is None else mean)
    return made


def _turned(values, turned: bool):
    """One number for each channel, in the other order."""
    return values[::-1] if turned and isinstance(values, tuple) else values


def _numbers(option: str, text: str, channels: int, least: float = -1e9) -> tuple[float, ...]:
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) not in (1, channels) or not all(least <= n <= 1e9 for n in found):
        more = f" or {channels} with commas" if channels > 1 else ""
        where = ", a .binaryproto or data" if option == "--mean" else ""
        above = " above 0" if least > 0 else ""
        raise UsageError(f"{option}={text}: must be a number{above}{more}{where}")
    return found
