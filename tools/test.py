"""Test a trained net: loss, top-1 and top-5 error, a table by class, predictions.

    python tools/test.py runs/spp_zf5_001
    python tools/test.py runs/spp_zf5_001/4.45.h5 --multiview --predictions=out.csv
    python tools/test.py runs/a_001 runs/a_002 runs/a_003 --multiview=96+2

The net and its data are what the checkpoint says, unless --data-path names other images. Without
a checkpoint the newest run under runs/ is tested. Of several checkpoints each is tested, then the
mean of their probabilities.
"""

import sys

from convnet import cli, options

VIEWS = ("10", "96", "96+2", "full")


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument(
        "checkpoints",
        nargs="*",
        default=["runs"],
        metavar="CHECKPOINT",
        help="a .h5 file, or a folder: the newest in it (default: runs); of several the "
        "probabilities are averaged",
    )
    parser.add_argument(
        "--multiview",
        choices=VIEWS,
        metavar="10|96|96+2|full",
        help="average so many views: 10 are centre and corners and their mirror images, 96 are at "
        "six scales, 96+2 with the whole image; full is the whole image alone (without a number: "
        "10)",
    )
    parser.add_argument(
        "--views",
        type=options.text,
        metavar="FILE",
        help="average the views of a file: scale, rectangle, mirror, weight (docs/views.md)",
    )
    parser.add_argument(
        "--views-of",
        choices=("maps", "images"),
        help="cut views from feature maps, one pass for each scale and mirror, or from images "
        "(default: maps, where the net has a pyramid)",
    )
    parser.add_argument(
        "--semantics",
        choices=("crop", "paper", "release"),
        help="which cells of a map a view covers: as many as the map of its crop has, those with "
        "their centre inside (the paper), or as the authors' code (default: crop)",
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
    options.add_data(parser, vary=False)
    options.add_device(parser)
    return parser.parse_args(with_number(sys.argv[1:]))


def with_number(words: list[str]) -> list[str]:
    """--multiview 96 and --multiview as --multiview=96 and =10; a checkpoint may come behind it."""
    found, words = [], [*words]
    while words:
        word = words.pop(0)
        if word == "--multiview":
            word += "=" + (words.pop(0) if words and words[0] in VIEWS else VIEWS[0])
        found.append(word)
    return found


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import evaluate

    return evaluate.test(args)


if __name__ == "__main__":
    cli.run(main, "--minibatch")
