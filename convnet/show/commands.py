"""The commands of tools/show.py by their names."""

from convnet.show.activations import activations
from convnet.show.bins import bins
from convnet.show.confusion import confusion
from convnet.show.curves import curves
from convnet.show.filters import filters
from convnet.show.graph import graph
from convnet.show.predictions import predictions

COMMANDS = {
    f.__name__: f for f in (curves, filters, predictions, confusion, activations, bins, graph)
}


def run(args) -> int:
    """Draw what the command line asks for, and say where it is."""
    for path in COMMANDS[args.command](args):
        print(path)
    return 0
