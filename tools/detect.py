"""Detection: boxes of objects on photos, by SPP-net or R-CNN.

    python tools/detect.py train --voc=VOCdevkit --net=runs/spp_zf5_001
    python tools/detect.py run photo.jpg --model=runs/detect/det.h5

train is prepare (proposals), features (maps), finetune, svm, bbox and test, each of which is a
command of its own, takes up where a killed one stopped, and skips what is done. They find their
options again in the job's folder (--work).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from convnet import cli, options


def arguments() -> argparse.Namespace:
    """The command line; what is not given stays unset, so that the job's folder may say it."""
    parser = cli.Parser(
        "detect.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_version(parser)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=cli.Parser
    )
    steps = {
        "train": "all steps, from proposals to the test",
        "prepare": "find or read proposals",
        "features": "convolve the photos to learn from, once",
        "finetune": "train the net on windows of photos",
        "svm": "train SVMs on its features",
        "bbox": "train the regression of boxes",
        "test": "detect on the test photos; average precision, curves, result files",
    }
    more = {
        "run": "detect on photos: a picture of each, and JSON",
        "crops": "crops of objects by class, to train a net on",
        "combine": "the detections of several tested jobs, together",
    }
    for name, what in {**steps, **more}.items():
        made = commands.add_parser(
            name,
            help=what,
            description=what,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        {"run": _run, "crops": _crops, "combine": _combine}.get(name, _step)(made)
    return parser.parse_args()


def _data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("photos, one of")
    group.add_argument("--voc", metavar="DIR", help="VOC's layout: JPEGImages, Annotations, ...")
    group.add_argument("--coco", metavar="JSON", help="COCO's; {split} in it stands for the split")
    group.add_argument("--ilsvrc", metavar="DIR", help="ILSVRC DET, with its devkit in it")
    group.add_argument("--images", metavar="DIR", help="the photos of a COCO set")
    group.add_argument("--split", metavar="NAME", help="to learn from (default: trainval)")


def _step(parser: argparse.ArgumentParser) -> None:
    _data(parser)
    parser.add_argument("--test-split", metavar="NAME", help="to test on (default: test)")
    parser.add_argument(
        "--per-class",
        type=options.positive,
        metavar="N",
        help="photos of each class to learn from, at most (default: all)",
    )
    group = parser.add_argument_group("job")
    group.add_argument("--work", metavar="DIR", help="its folder (default: runs/detect)")
    group.add_argument("--net", metavar="PATH", help="checkpoint of a trained classifier")
    group.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="do part I of N of the photos, in prepare, features and test",
    )
    group.add_argument(
        "--seed", type=options.natural, metavar="N", help="of all that is random (default: 0)"
    )
    group.add_argument("--device", metavar="NAME", help="where to compute: cpu (default) or gpu")
    group = parser.add_argument_group("windows")
    group.add_argument("--method", choices=("spp", "rcnn"), help="windows of maps, or warped crops")
    group.add_argument(
        "--semantics",
        choices=("release", "paper"),
        help="which scale and cells a box has (default: release)",
    )
    group.add_argument(
        "--scales",
        metavar="LIST",
        help="shorter sides of the photo: 1 (688, the default), 5, or a list",
    )
    group.add_argument(
        "--mean",
        type=options.finite,
        metavar="X",
        help="subtracted from all channels (default: the net's means; the authors' release: 128)",
    )
    group.add_argument(
        "--proposals",
        metavar="HOW",
        help="fast (selective search, default), quality, grid, or a file",
    )
    group = parser.add_argument_group("learning")
    group.add_argument(
        "--head",
        choices=("softmax", "softmax+bbox"),
        help="what the net learns; the second moves boxes too, and needs no SVMs",
    )
    group.add_argument(
        "--finetune",
        choices=("fc", "all", "none"),
        help="fc layers over frozen maps (default), the whole net, or nothing",
    )
    group.add_argument(
        "--schedule",
        choices=("short", "release", "paper"),
        help="of fine-tuning: 2,000 batches for small sets (default), the authors' 200,000, or the "
        "paper's 300,000",
    )
    group.add_argument(
        "--iterations",
        type=options.positive,
        metavar="N",
        help="batches of 128 windows (default: the schedule's)",
    )
    group.add_argument("--rate", type=options.amount, metavar="X", help="its first rate")
    group.add_argument(
        "--set", action="append", metavar="SECTION.KEY=VALUE", help="change the detector's cfg"
    )
    group.add_argument("--layer", metavar="NAME", help="features of the SVMs (default: fc7)")
    group.add_argument(
        "--svm", action=argparse.BooleanOptionalAction, help="SVMs, or the softmax as it is"
    )
    group.add_argument("--bbox", action=argparse.BooleanOptionalAction, help="box regression")
    group.add_argument(
        "--difficult",
        action=argparse.BooleanOptionalAction,
        help="learn from difficult objects too, as the release does",
    )
    group = parser.add_argument_group("test")
    group.add_argument("--svd", metavar="RANKS", help="low-rank fc layers, as in 1024,256")
    _nms(group)
    _rule(group)


def _nms(group) -> None:
    group.add_argument(
        "--nms",
        type=options.share,
        metavar="X",
        help="overlap above which the worse of two detections goes (default: 0.3)",
    )


def _rule(group) -> None:
    group.add_argument(
        "--rule",
        choices=("voc07", "area", "ilsvrc", "coco"),
        help="of average precision (default: that of the set)",
    )


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", help="photos, folders of them, or lists (.txt)")
    parser.add_argument("--model", required=True, metavar="PATH", help="det.h5 of a job")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where pictures and detections.json go (default: detections)",
    )
    parser.add_argument(
        "--threshold",
        type=options.finite,
        metavar="X",
        help="show what scores at least this (default: the model's)",
    )
    parser.add_argument("--proposals", metavar="HOW", help="fast, quality or grid")
    parser.add_argument("--device", metavar="NAME", help="where to compute: cpu (default) or gpu")


def _crops(parser: argparse.ArgumentParser) -> None:
    _data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--seed", type=options.natural, metavar="N", help="of places without objects (default: 0)"
    )


def _combine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="folders of jobs (--work)")
    parser.add_argument("--out", metavar="DIR", help="of the results (default: runs/combined)")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="compare probabilities, which each job has learned for its scores, not scores",
    )
    _nms(parser)
    _rule(parser)


def shard(text: str) -> tuple[int, int]:
    """I/N as (I, N)."""
    first, slash, count = text.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: must be I/N with 1 <= I <= N, as in 1/4")
    return int(first), int(count)


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    from convnet.detect import commands

    return commands.run(vars(args))


if __name__ == "__main__":
    cli.run(main)
