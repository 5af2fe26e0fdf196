"""Linear SVMs on features: how well they tell apart classes that the net was not trained on.

    python tools/svm_classify.py --features=fc7.h5
    python tools/svm_classify.py --features=fc7.h5 --voc=VOCdevkit/VOC2007
    python tools/svm_classify.py --features=spp.h5 --caltech

The protocols of the SPP-net paper: each row of the file at length 1, one SVM for each class against
the rest. By default the training and test images are those of the file; docs/features.md.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument(
        "--features",
        type=options.text,
        metavar="FILE.h5",
        help="a file of tools/features.py",
    )
    parser.add_argument(
        "--layer",
        type=options.text,
        metavar="NAME",
        help="which of its layers (default: the only one)",
    )
    parser.add_argument(
        "--norm",
        choices=("l2", "none"),
        default="l2",
        help="l2: each row at length 1 (default: l2)",
    )
    parser.add_argument(
        "--C",
        type=options.weight_or_auto,
        default=1.0,
        metavar="X|auto",
        help="weight of the errors in training; auto: found by cross-validation on the training "
        "images (default: 1)",
    )
    parser.add_argument(
        "--seed",
        type=options.natural,
        default=0,
        metavar="N",
        help="of random draws, folds and liblinear (default: 0)",
    )
    parser.add_argument(
        "--json",
        type=options.text,
        metavar="FILE",
        help="write arguments, versions and all figures",
    )
    group = parser.add_argument_group("PASCAL VOC")
    group.add_argument(
        "--voc",
        type=options.text,
        metavar="DIR",
        help="a folder such as VOCdevkit/VOC2007: labels from its ImageSets/Main, mean average "
        "precision",
    )
    group.add_argument(
        "--voc-sets",
        type=options.text,
        default="trainval,test",
        metavar="A,B",
        help="train on A, test with B; train,val to choose a scale (default: trainval,test)",
    )
    group = parser.add_argument_group("random draws")
    group.add_argument(
        "--caltech",
        action="store_true",
        help="as on Caltech101: --per-class=30 --test-per-class=50 --splits=10",
    )
    group.add_argument(
        "--per-class",
        type=options.positive,
        metavar="N",
        help="draw so many images of each class to train on",
    )
    group.add_argument(
        "--test-per-class",
        type=options.positive,
        metavar="N",
        help="test with at most so many of the others (default: with all)",
    )
    group.add_argument(
        "--splits",
        type=options.positive,
        metavar="N",
        help="draw so many times (default: 1)",
    )
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import transfer

    return transfer.classify(args)


if __name__ == "__main__":
    cli.run(main)
