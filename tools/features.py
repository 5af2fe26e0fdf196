"""What layers of a trained net make of images, in a HDF5 file.

    python tools/features.py runs/x_001 --layer=fc7 --data-path=photos/ --out=fc7.h5
    python tools/features.py runs/x_001 --layer=conv5,spp --view=full --scale=392 --out=maps.h5

The images are those of the run, or of --data-path: classes as in training, or just a folder of
pictures, or a text file that names one a line. docs/features.md says what is in the file.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default="runs",
        metavar="CHECKPOINT",
        help="a .h5 file, or a folder: the newest in it (default: runs)",
    )
    parser.add_argument(
        "--layer",
        type=options.text,
        metavar="NAME",
        help="the layer, or several with commas; spp is the whole pyramid, also of pools",
    )
    parser.add_argument(
        "--out",
        type=options.text,
        metavar="FILE.h5",
        help="the file to write",
    )
    parser.add_argument(
        "--split",
        choices=("train", "test", "all"),
        default="all",
        help="of which images (default: all)",
    )
    parser.add_argument(
        "--view",
        choices=("centre", "ten", "full", "warp"),
        default="centre",
        help="what the net sees of an image: its centre, ten views, all of it at its own shape, "
        "all of it squeezed into a square (default: centre)",
    )
    parser.add_argument(
        "--scale",
        type=options.positive,
        metavar="N",
        help="pixels of the shorter side of the image then (default: as in training)",
    )
    parser.add_argument(
        "--mean",
        type=options.amount,
        metavar="X",
        help="subtract this number instead of the mean image of the training; the paper takes 128 "
        "for images of another kind",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the numbers in the file (default: float32)",
    )
    parser.add_argument(
        "--minibatch",
        "--mini",
        type=options.positive,
        default=32,
        metavar="N",
        help="views at a time (default: 32)",
    )
    options.add_data(parser, vary=False)
    options.add_device(parser)
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import session

    return session.features(args)


if __name__ == "__main__":
    cli.run(main, "--minibatch")
