"""Test a trained net: loss, top-1 and top-5 error, a table by class, predictions.

    python tools/test.py runs/spp_zf5_001
    python tools/test.py runs/spp_zf5_001/4.45.h5 --multiview --predictions=out.csv

The net and its data are what the checkpoint says, unless --data-path names other images. Without
a checkpoint the newest run under runs/ is tested.
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
        "--multiview",
        action="store_true",
        help="average 10 views: centre, corners, and their mirror images",
    )
    parser.add_argument(
        "--minibatch",
        "--mini",
        type=options.positive,
        default=32,
        metavar="N",
        help="views at a time (default: 32)",
    )
    parser.add_argument(
        "--predictions",
        type=options.text,
        metavar="FILE.csv",
        help="write the probabilities of every image to a CSV file",
    )
    parser.add_argument(
        "--submission",
        type=options.text,
        metavar="FILE",
        help="of ImageNet: write five classes an image, in the form of an ILSVRC submission",
    )
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        help="of ImageNet: the images to test with; those of test have no labels (default: val)",
    )
    options.add_data(parser)
    options.add_device(parser)
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import session

    return session.test(args)


if __name__ == "__main__":
    cli.run(main)
