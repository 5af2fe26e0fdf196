"""Train a net from its layer definition.

    python tools/train.py --layer-def=layer_configs/spp_zf5.cfg
    python tools/train.py --layer-def=my.cfg --data-path=my_images/ --epochs=30
    python tools/train.py --layer-def=net_224.cfg,net_180.cfg
    python tools/train.py --layer-def=my.cfg --data-path=my_images/ --init-from=vgg16.pth
    python tools/train.py --resume=runs/my_001

Without --data-path it trains on the built-in data: 1,797 handwritten digits, at the size that the
net asks for. Everything goes to a folder of its own under runs/: checkpoints <epoch>.<batch>.h5,
metrics.jsonl (a line a batch) and results.csv (a row a test). Several layer definitions with commas
are networks that share all weights and take turns, as in the paper's multi-size training
(docs/pyramid.md). Ctrl-C ends the run after the batch at hand and saves; --resume goes on from
there, with the options that the run began with unless others are given.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_data(parser)
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs",
        type=options.positive,
        metavar="N",
        help="passes over the training images, in all; also the time axis of the "
        "schedules (default: 4 for the built-in digits, else 30)",
    )
    group.add_argument(
        "--minibatch",
        "--mini",
        type=options.positive,
        metavar="N",
        help="images for one update (default: 16 for the built-in digits, else 64)",
    )
    group.add_argument(
        "--sizes",
        type=options.text,
        metavar="A,B|A:B",
        help="sides of the images to train at in turn, as in 224,180, or drawn from a range, as "
        "in 180:224; for nets with a pyramid (default: imgSize alone)",
    )
    group.add_argument(
        "--switch",
        choices=("epoch", "batch"),
        help="when the next of several sizes has its turn (default: epoch)",
    )
    group.add_argument(
        "--seed",
        type=options.natural,
        metavar="N",
        help="of weights, order, augmentation and dropout (default: 0)",
    )
    group.add_argument(
        "--test-freq",
        type=options.natural,
        metavar="N",
        help="test and save every N batches, besides after each epoch (default: 0, never)",
    )
    group.add_argument(
        "--save-path",
        type=options.text,
        metavar="DIR",
        help="folder of the run (default: runs/<name of the cfg>_<number>)",
    )
    group.add_argument(
        "--keep",
        type=options.positive,
        metavar="N",
        help="newest checkpoints to keep (default: 2)",
    )
    group.add_argument(
        "--init-from",
        type=options.text,
        metavar="FILE",
        help="begin with the weights of a run, or of Caffe, PyTorch or cuda-convnet: those layers "
        "that it has and that fit, the others as initialised (docs/weights.md)",
    )
    group.add_argument(
        "--tensorboard",
        nargs="?",
        type=options.yes_or_no,
        const=True,
        metavar="yes|no",
        help="write event files for TensorBoard into the folder of the run as well",
    )
    group.add_argument(
        "--resume",
        type=options.text,
        metavar="PATH",
        help="go on from a checkpoint, or from the newest in a folder",
    )
    options.add_device(group)
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet import session

    return session.train(args)


if __name__ == "__main__":
    cli.run(main, "--minibatch")
