"""A trained net for other programs: as an ONNX model, or its weights as safetensors.

    python tools/export.py runs/spp_zf5_001 --onnx=net.onnx
    python tools/export.py runs/spp_zf5_001 --onnx=pyramid.onnx --layer=conv5,spp --size=300x400
    python tools/export.py runs/spp_zf5_001 --safetensors=net.safetensors

The model takes images as they are, uint8 (N, rows, columns, channels) of 0..255, and gives what
tools/features.py and test.py find for them: docs/deploy.md.
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
        "--onnx", type=options.text, metavar="FILE.onnx", help="write an ONNX model"
    )
    parser.add_argument(
        "--layer",
        type=options.text,
        metavar="NAME",
        help="the layer that the model ends with, or several with commas, as in tools/features.py "
        "(default: the probabilities of the classes)",
    )
    parser.add_argument(
        "--size",
        type=options.sides,
        metavar="N|HxW",
        help="side of the images, or rows x columns, that the model takes; others than those of "
        "the training go with a pyramid (default: as in training)",
    )
    parser.add_argument(
        "--safetensors",
        type=options.text,
        metavar="FILE.safetensors",
        help="write the weights as PyTorch has them: conv1.weight (out, in, rows, columns)",
    )
    return parser.parse_args()


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet.foreign import commands

    return commands.send(args)


if __name__ == "__main__":
    cli.run(main, "--size")
