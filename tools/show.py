"""Pictures of nets and runs, as PNG or SVG.

    python tools/show.py curves runs/a_001 runs/a_002      costs and errors, of one run or several
    python tools/show.py filters runs/a_001                the first layer's weights
    python tools/show.py predictions runs/a_001            test images and what the net says
    python tools/show.py confusion runs/a_001              which class is taken for which
    python tools/show.py activations runs/a_001 me.jpg     what a layer makes of an image
    python tools/show.py bins runs/a_001                   what each bin of the pyramid looks for
    python tools/show.py graph layer_configs/spp_zf5.cfg   the layers and how they hang together
    python tools/show.py report runs/a_001                 all of it in one page of HTML

RUN is the folder of a run, a checkpoint, or a folder of runs: the newest. What is drawn goes into
the folder of the run unless --out=FILE names another place. docs/pictures.md tells how to read it.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return add_all(commands, parser)


def add_all(commands, parser):
    one = _command(commands, "curves", "costs and errors of one run or several", several=True)
    one.add_argument("--cost", type=options.text, metavar="NAME",
                     help="one value alone, as in logprob.error (default: all)")  # fmt: skip
    one = _command(commands, "filters", "weights of the first layer, or of another")
    one.add_argument("--layer", type=options.text, metavar="NAME",
                     help="of this layer (default: the first that sees the images)")  # fmt: skip
    one.add_argument("--input", type=options.natural, default=0, metavar="N",
                     help="the weights over which of its inputs (default: 0)")  # fmt: skip
    one.add_argument("--filters", type=options.positive, metavar="N", help="filters to show")
    one.add_argument("--channels", type=options.positive, metavar="N",
                     help="channels to show of each, in grey")  # fmt: skip
    one = _command(commands, "predictions", "test images, and the five most probable classes")
    one.add_argument("--images", type=options.positive, default=8, metavar="N",
                     help="how many (default: 8)")  # fmt: skip
    one.add_argument("--only-errors", action="store_true",
                     help="those alone that are taken for another class")  # fmt: skip
    one.add_argument("--seed", type=options.natural, default=0, metavar="N",
                     help="another one draws other images (default: 0)")  # fmt: skip
    _add_data(one)
    one = _command(commands, "confusion", "which class is taken for which")
    _add_data(one)
    one = _command(commands, "activations", "what a layer makes of an image")
    one.add_argument("image", metavar="IMAGE", help="a file, or the number of a test image")
    one.add_argument("--layer", type=options.text, metavar="NAME",
                     help="(default: what the pyramid reads)")  # fmt: skip
    one.add_argument("--channels", type=options.positive, metavar="N",
                     help="maps to show (default: 96)")  # fmt: skip
    _add_data(one)
    one = _command(commands, "bins", "what each bin of the pyramid looks for")
    one.add_argument("--layer", type=options.text, metavar="NAME",
                     help="(default: what the pyramid reads)")  # fmt: skip
    one.add_argument("--level", type=options.positive, metavar="N",
                     help="the N x N bins of this level alone")  # fmt: skip
    one.add_argument("--filters", type=options.text, metavar="A,B",
                     help="these filters, from 0 (default: for each bin one that suits it)")  # fmt: skip
    one.add_argument("--images", type=options.positive, metavar="N",
                     help="look at the first N test images alone")  # fmt: skip
    one.add_argument("--windows", type=options.positive, default=8, metavar="N",
                     help="windows to show of each (default: 8)")  # fmt: skip
    _add_data(one)
    one = _command(
        commands, "graph", "the layers, shapes and weights of a net", kinds="svg, .png or .dot"
    )
    one.add_argument("--classes", type=options.positive, metavar="N",
                     help="of a cfg: what outputs=classes stands for (default: 10)")  # fmt: skip
    one.add_argument("--size", type=options.positive, metavar="N",
                     help="side of the images, for a cfg without imgSize")  # fmt: skip
    return parser.parse_args()


def _command(commands, name: str, what: str, several: bool = False, kinds: str = "png or .svg"):
    """A command with RUN and --out."""
    made = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
    word = "CFG|RUN" if name == "graph" else "RUN"
    made.add_argument("run", nargs="+" if several else None, metavar=word)
    made.add_argument("--out", type=options.text, metavar="FILE", help=f"a .{kinds}")
    return made


def _add_data(parser) -> None:
    """Which test images, and what runs the net."""
    options.add_data(parser, vary=False)
    parser.add_argument("--split", choices=("val", "test"),
                        help="of ImageNet: the images to test with (default: val)")  # fmt: skip
    options.add_device(parser)


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet.show import commands

    return commands.run(args)


if __name__ == "__main__":
    cli.run(main)
