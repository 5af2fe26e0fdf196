"""The commands of tools/show.py by their names."""

from convnet.show.activations import activations
from convnet.show.bins import bins
from convnet.show.confusion import confusion
from convnet.show.curves import curves
from convnet.show.filters import filters
from convnet.show.graph import graph
from convnet.show.predictions import predictions
from convnet.show.report import report

ALL = (curves, filters, predictions, confusion, activations, bins, graph, report)


def run(args) -> int:
    """Draw what the command line asks for, and say where it is."""
    draw = {command.__name__: command for command in ALL}[args.command]
    print(draw(args))
    return 0
