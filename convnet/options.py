"""Command-line options that several tools share. Imports nothing slow: --help must be quick."""

import argparse
import contextlib
import inspect
import math
from collections.abc import Callable

from convnet import __version__
from convnet.cli import Parser

MOST = 999_999_999  # of what is counted


def parser(doc: str) -> Parser:
    """A parser with the tool's docstring as its help."""
    made = Parser(
        description=inspect.cleandoc(doc),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_version(made)
    return made


def add_version(parser: argparse.ArgumentParser) -> None:
    """--version."""
    parser.add_argument(
        "--version",
        action="version",
        version=f"convnet {__version__}",
        help="show the version of convnet and exit",
    )


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole(text, 1)


def quality(text: str) -> int:
    """A quality of JPEG files: 1 to 95, beyond which they only grow."""
    return _whole(text, 1, 95)


def natural(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole(text, 0)


def workers(text: str) -> int:
    """Processes that decode images: 0 to 256, beyond which they only take memory."""
    return _whole(text, 0, 256)


def _whole(text: str, least: int, most: int = MOST) -> int:
    if text.isdecimal() and len(text) <= 9 and least <= int(text) <= most:
        return int(text)
    which = f"of {least} or more" if most == MOST else f"from {least} to {most}"
    with contextlib.suppress(ValueError):
        if float(text) >= least:  # too large, or 1e3
            which = f"from {least} to {most}" + ("" if text.isdecimal() else ", in digits")
    raise argparse.ArgumentTypeError(f"must be a whole number {which}, not {text!r}")


def amount(text: str) -> float:
    """A number of 0 or more."""
    return _number(text, lambda number: number >= 0, "of 0 or more")


def weight_or_auto(text: str) -> float | str:
    """A number from 1e-6 to 1e6, beyond which no SVM gets far, or the word auto."""
    which = "from 1e-6 to 1e6, or auto"
    return text if text == "auto" else _number(text, lambda number: 1e-6 <= number <= 1e6, which)


def finite(text: str) -> float:
    """Any number."""
    return _number(text, lambda number: True, "that is finite")


def share(text: str) -> float:
    """A number between 0 and 1."""
    return _number(text, lambda number: 0 < number < 1, "between 0 and 1")


def _number(text: str, fits: Callable[[float], bool], which: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(text)) and fits(number):
            return number
    raise argparse.ArgumentTypeError(f"must be a number {which}, not {text!r}")


def sides(text: str) -> tuple[int, int]:
    """Rows and columns: 224, or 688x917."""
    rows, x, columns = text.partition("x")
    try:
        return positive(rows), positive(columns if x else rows)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be a side or rows x columns, not {text!r}"
        ) from None


def text(value: str) -> str:
    """Any text but an empty one, which is what an unset variable of a shell leaves."""
    if not value:
        raise argparse.ArgumentTypeError("is empty")
    return value


def yes_or_no(text: str) -> bool:
    """yes or no."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"must be yes or no, not {text!r}")
    return text == "yes"


def add_net(parser: argparse.ArgumentParser) -> None:
    """--layer-def, --layer-params, --set."""
    group = parser.add_argument_group("net")
    group.add_argument(
        "--layer-def",
        type=text,
        metavar="FILE.cfg",
        help="the layers; a section is a layer (docs/cfg.md)",
    )
    group.add_argument(
        "--layer-params",
        type=text,
        metavar="FILE.cfg",
        help="learning rates and the like (default: <layer-def>-params.cfg "
        "beside the layer definition, if it is there)",
    )
    add_set(group)


def add_set(parser) -> None:
    """--set, of a net that comes as a cfg."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="LAYER.KEY=VALUE",
        help="change one key, as in conv1.filters=64; may be repeated",
    )


def add_device(parser) -> None:
    """--device, which is the same for every tool."""
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu, cpu:plain (every layer by its plain kernels), gpu or gpu:<number>; gpu:tf32 "
        "multiplies numbers rounded to 10 bits, which is faster (default: cpu)",
    )


def add_data(parser: argparse.ArgumentParser, vary: bool = True) -> None:
    """--data-path, --data-provider, how images are read; vary: and how training views are made."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-path",
        type=text,
        metavar="DIR",
        help="train/<class>/*.jpg and test/<class>/*.jpg, or <class>/*.jpg, a folder of CIFAR "
        "batches, ImageNet (docs/imagenet.md), a set of tools/make_data.py, or tar files of images "
        "(default: the built-in digits)",
    )
    add_provider(group)
    if vary:
        _add_variation(group)
    group.add_argument(
        "--test-fraction",
        type=share,
        metavar="F",
        help="share of the images to test on where the folder has no test/ (default: 0.2)",
    )
    group.add_argument(
        "--workers",
        type=workers,
        metavar="N",
        help="processes that decode images; 0: none (default: as many as cores, at most 4)",
    )
    group.add_argument(
        "--on-bad-image",
        choices=("skip", "stop"),
        help="what to do with an image that cannot be read (default: skip)",
    )


def add_provider(group) -> None:
    """--data-provider."""
    group.add_argument(
        "--data-provider",
        type=text,
        metavar="NAME",
        help="digits, images, cifar, ilsvrc, packed or tars (default: found from the folder)",
    )


def _add_variation(group) -> None:
    """How training views are made."""
    group.add_argument(
        "--crop",
        choices=("random", "corners", "centre"),
        help="where training views are cut; corners: centre or corners, as in the paper "
        "(default: random)",
    )
    group.add_argument(
        "--mirror",
        type=yes_or_no,
        metavar="yes|no",
        help="mirror half of the training views (default: as suits the data)",
    )
    group.add_argument(
        "--color-noise",
        type=amount,
        metavar="SD",
        help="PCA colour noise, 0: none (default: as suits the data; for photos the paper's 0.1)",
    )


def add_job(parser: argparse.ArgumentParser) -> None:
    """What is measured and how, for all that measure speed (convnet/bench.py)."""
    parser.add_argument(
        "--classes",
        type=positive,
        metavar="N",
        help="what outputs=classes stands for (default: 10 where the cfg says it)",
    )
    parser.add_argument(
        "--size",
        type=sides,
        metavar="N|HxW",
        help="side of the images, or rows x columns, for a cfg without imgSize and for nets, or "
        "a beginning of one (--upto), that take any size",
    )
    parser.add_argument(
        "--upto",
        type=text,
        metavar="LAYER",
        help="the layer that an inference is to end with",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=5,
        metavar="N",
        help="each figure is the median of so many (default: 5)",
    )
    parser.add_argument(
        "--seconds",
        type=amount,
        default=0.5,
        metavar="S",
        help="a round repeats short steps for so long and takes their mean (default: 0.5)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="of each engine (default: as many as cores)",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="of the weights and of the noise (default: 0)",
    )
    parser.add_argument(
        "--json",
        type=text,
        metavar="FILE",
        help="write arguments, machine, versions and every round",
    )
