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
    one = _command(commands, "curves", "costs and errors of one run or several", several=True)
    _text(one, "--cost", "NAME", "one value alone, as in logprob.error (default: all)")
    one = _command(commands, "filters", "weights of the first layer, or of another")
    _text(one, "--layer", "NAME", "of this layer (default: the first that sees the images)")
    _number(one, "--input", "N", "the weights over this input of several (default: 0)", 0)
    _number(one, "--filters", "N", "filters to show (default: all of colours, else 32)")
    _number(one, "--channels", "N", "channels to show of each, in grey (default: 24)")
    one = _command(commands, "predictions", "test images, and the five most probable classes")
    _number(one, "--images", "N", "how many to show (default: 8)", 8)
    _number(one, "--seed", "N", "another one draws other images (default: 0)", 0)
    errors = "those alone that are taken for another class"
    one.add_argument("--only-errors", action="store_true", help=errors)
    _add_data(one)
    one = _command(commands, "confusion", "which class is taken for which")
    _add_data(one)
    one = _command(commands, "activations", "what a layer makes of an image")
    one.add_argument("image", metavar="IMAGE", help="a file, or the number of a test image")
    _text(one, "--layer", "NAME", "of this layer (default: the map that the pyramid reads)")
    _number(one, "--channels", "N", "maps to show (default: 96)")
    _add_data(one)
    one = _command(commands, "bins", "what each bin of the pyramid looks for")
    _text(one, "--layer", "NAME", "a map (default: the one that the pyramid reads)")
    _number(one, "--level", "N", "the N x N bins of this level alone")
    _text(one, "--filters", "A,B", "these filters, from 0 (default: for each bin one of its own)")
    _number(one, "--images", "N", "look at N test images, drawn at random (default: all)")
    _number(one, "--windows", "N", "windows to show of each (default: 8)", 8)
    _add_data(one)
    one = _command(
        commands, "graph", "the layers of a net, with shapes and weights", "svg .png .dot"
    )
    _number(one, "--classes", "N", "of a cfg: what outputs=classes stands for (default: 10)")
    _number(one, "--size", "N", "side of the images, for a cfg without imgSize")
    options.add_set(one)
    one = _command(commands, "report", "a page of HTML about a run, in one file", "html")
    _add_data(one)
    return parser.parse_args()


def _command(commands, name: str, what: str, kinds: str = "png .svg", several: bool = False):
    """A command with RUN and --out."""
    of_cfg = name == "graph"
    made = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
    made.add_argument(
        "run",
        nargs="+" if several else None,
        metavar="CFG|RUN" if of_cfg else "RUN",
        help="a layer definition, or a run"
        if of_cfg
        else "a run: its folder, a checkpoint, or a folder of runs",
    )
    first, *more = kinds.split()
    kinds = f" (or {', '.join(more)})" if more else ""
    place = "in the folder of the run" + ", for a cfg in this one" * of_cfg
    _text(made, "--out", "FILE", f"a file .{first}{kinds} (default: {place})")
    return made


def _text(parser, name: str, metavar: str, what: str) -> None:
    parser.add_argument(name, type=options.text, metavar=metavar, help=what)


def _number(parser, name: str, metavar: str, what: str, default: int | None = None) -> None:
    """A whole number: of 0 or more where that is the default, else of 1 or more."""
    kind = options.natural if default == 0 else options.positive
    parser.add_argument(name, type=kind, metavar=metavar, help=what, default=default)


def _add_data(parser) -> None:
    """Which test images, and what runs the net."""
    options.add_data(parser, vary=False)
    split = "of ImageNet: the images to look at (default: val)"
    parser.add_argument("--split", choices=("val", "test"), help=split)
    options.add_device(parser)


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet.show import commands

    return commands.run(args)


if __name__ == "__main__":
    cli.run(main)
