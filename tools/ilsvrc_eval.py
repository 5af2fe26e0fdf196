"""The error of an ILSVRC submission for the images of val: top-1 and top-5 ("flat error").

    python tools/ilsvrc_eval.py submission.txt --devkit=imagenet/ILSVRC2012_devkit_t12

A line for each image, in the order of their names: up to five ILSVRC2012_IDs with a space between
them, the most probable first. If the devkit has a blacklist, or a later devkit beside it has, the
error without its images is printed, too; the official one counts all images.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument(
        "submission",
        metavar="SUBMISSION",
        help="what tools/test.py --submission or another program has written",
    )
    parser.add_argument(
        "--devkit",
        type=options.text,
        required=True,
        metavar="DIR",
        help="the folder ILSVRC2012_devkit_t12, or the one that it is in",
    )
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import ilsvrc

    return ilsvrc.evaluate(args)


if __name__ == "__main__":
    cli.run(main)
