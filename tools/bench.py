"""Where the time of a step goes: each layer of any net, forward and backward, next to PyTorch.

python tools/bench.py --layer-def=layer_configs/spp_zf5.cfg --classes=1000
python tools/bench.py --layer-def=layer_configs/spp_zf5.cfg --mode=infer --upto=conv5 --size=688x917
python tools/bench.py --layer-def=layer_configs/cifar10.cfg --batch=128 --compare=torch

The batch is noise. GFLOP/s are those of the direct arithmetic, two for each multiply-add, so that
an algorithm that multiplies less may be above what the machine can do. GB/s count the bytes that a
layer must read and write at least: inputs, weights, output; backward their gradients as well. A
layer whose work is done by the pass of another one is shown as "with" that. Where the product that
gives the gradient of the weights is a part of the update (type=fc), both count as backward.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_device(parser)
    options.add_job(parser)
    parser.add_argument(
        "--batch",
        type=options.positive,
        default=32,
        metavar="N",
        help="images in the batch (default: 32)",
    )
    parser.add_argument(
        "--mode",
        choices=("train", "infer"),
        default="train",
        help="forward, backward and update, or forward alone (default: train)",
    )
    parser.add_argument(
        "--compare",
        choices=("torch",),
        help="build the same net in PyTorch and measure both in turn, PyTorch at its fastest "
        "setting (docs/performance.md)",
    )
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import benchtable

    return benchtable.bench_net(args)


if __name__ == "__main__":
    cli.run(main, "--batch")
