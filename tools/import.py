"""Weights of another program, or of another net, as a checkpoint of convnet.

    python tools/import.py vgg16.pth --layer-def=layer_configs/vgg16.cfg
    python tools/import.py zf5.caffemodel --layer-def=layer_configs/zf5.cfg --out=zf5.h5

Reads Caffe's .caffemodel, state dicts of PyTorch (.pth, .safetensors), checkpoints of cuda-convnet
and of convnet; nothing that stands in a file is run. Prints what went where and how it was turned.
The checkpoint is for tools/test.py, features.py, detect.py, export.py, train.py: docs/weights.md.
"""

from convnet import cli, options


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument("file", metavar="FILE", help="weights, or the folder of a run")
    options.add_net(parser)
    group = parser.add_argument_group("import")
    group.add_argument(
        "--out",
        type=options.text,
        metavar="FILE.h5",
        help="the checkpoint (default: runs/<name of the cfg>_<number>/1.0.h5)",
    )
    group.add_argument(
        "--classes",
        type=options.text,
        metavar="N|FILE",
        help="number of classes, or a file with a name a line (default: as many as the file's last "
        "layer has outputs, or the classes of --data-path)",
    )
    group.add_argument(
        "--size",
        type=options.sides,
        metavar="N|HxW",
        help="side of the images, or rows x columns, for a cfg without imgSize",
    )
    group.add_argument(
        "--map",
        type=options.text,
        metavar="OURS=THEIRS,..",
        help="layers that go together though their names differ; the rest is matched as without it",
    )
    group.add_argument(
        "--partial",
        action="store_true",
        help="leave layers that the file has nothing for as they are initialised, and weights in "
        "the file that have no counterpart here out",
    )
    group = parser.add_argument_group("what the net in the file expects of images")
    group.add_argument(
        "--channels",
        choices=("rgb", "bgr"),
        help="order of their channels (default: bgr of Caffe, else rgb)",
    )
    group.add_argument(
        "--mean",
        type=options.text,
        metavar="X|A,B,C|FILE|data",
        help="what it subtracts from pixels of 0..255: a number, one for each channel, a "
        ".binaryproto, or the mean of --data-path (default: that of ImageNet for Caffe and "
        "PyTorch, else 0)",
    )
    group.add_argument(
        "--std",
        type=options.text,
        metavar="X|A,B,C",
        help="what it divides them by then (default: 1; torchvision's for PyTorch)",
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-path",
        type=options.text,
        metavar="DIR",
        help="images of the net's classes, as in tools/train.py: gives their names, and a run to "
        "--resume (default: none)",
    )
    options.add_provider(group)
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet.foreign import commands

    return commands.bring(args)


if __name__ == "__main__":
    cli.run(main)
