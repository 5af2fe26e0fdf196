"""Look at a net before training it: shapes, weights, multiply-adds, memory; check its gradients.

python tools/check.py --layer-def=layer_configs/spp_zf5.cfg --classes=1000
python tools/check.py --layer-def=my.cfg --classes=10 --size=32 --grad
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    parser.add_argument(
        "--classes",
        type=options.positive,
        metavar="N",
        help="what outputs=classes stands for (default: 10 where the cfg says it)",
    )
    parser.add_argument(
        "--size",
        type=options.positive,
        metavar="N",
        help="side of the images, for a cfg without imgSize",
    )
    parser.add_argument(
        "--minibatch",
        "--mini",
        type=options.positive,
        default=32,
        metavar="N",
        help="for the estimate of the memory (default: 32)",
    )
    parser.add_argument(
        "--grad",
        action="store_true",
        help="compare all gradients with finite differences in float64",
    )
    parser.add_argument(
        "--seed",
        type=options.natural,
        default=0,
        metavar="N",
        help="of the weights and directions of --grad (default: 0)",
    )
    parser.add_argument(
        "--keys",
        nargs="?",
        const="all",
        metavar="TYPE",
        help="list the keys of a layer type, or of all types, with their meaning",
    )
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import session

    return session.check(args)


if __name__ == "__main__":
    cli.run(main, "--minibatch")
