"""Images in folders or tar files, ImageNet: packed into a few large files; public sets.

    python tools/make_data.py my_images/ --out=packed/
    python tools/make_data.py --check=packed/
    python tools/train.py --data-path=packed/ --layer-def=...
    python tools/make_data.py --download=imagenette --to=data/

docs/images.md says when that pays. A run that was stopped goes on with the same command.
"""

from convnet import cli, options

PACK = "SOURCE"
# the jobs that an option goes with, where that is not PACK alone
JOBS = {
    "check": ["--check"],
    "download": ["--download"],
    "to": ["--download"],
    "workers": [PACK, "--check"],
}
USUAL = {"to": "data", "quality": 90, "shard_size": 512}  # where nothing was given


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    parser.add_argument(
        "source",
        nargs="?",
        type=options.text,
        metavar="SOURCE",
        help="what --data-path of tools/train.py takes: a folder of images in folders, tar "
        "files of such, ImageNet in its own layout",
    )
    parser.add_argument(
        "--out",
        type=options.text,
        metavar="DIR",
        help="the folder to make",
    )
    parser.add_argument(
        "--check",
        type=options.text,
        metavar="DIR",
        help="read every image of a packed set: its checksum, and whether it can be decoded",
    )
    parser.add_argument(
        "--download",
        type=options.text,
        metavar="NAME",
        help="fetch cifar10, imagenette, imagenette160 or voc2007, and unpack it",
    )
    parser.add_argument(
        "--to",
        type=options.text,
        metavar="DIR",
        help="where to (default: data)",
    )
    parser.add_argument(
        "--resize",
        type=options.positive,
        metavar="N",
        help="bring the shorter side of larger images down to N pixels (default: files as they "
        "are)",
    )
    parser.add_argument(
        "--quality",
        type=options.quality,
        metavar="Q",
        help="of the JPEG files then, 1 to 95 (default: 90)",
    )
    parser.add_argument(
        "--shard-size",
        type=options.positive,
        metavar="MB",
        help="of the files, about (default: 512)",
    )
    parser.add_argument(
        "--test-fraction",
        type=options.share,
        metavar="F",
        help="share of the images to test on where the source has no test/ (default: 0.2)",
    )
    parser.add_argument(
        "--workers",
        type=options.workers,
        metavar="N",
        help="processes that decode images; 0: none (default: as many as cores, at most 4)",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=("skip", "stop"),
        help="what to do with an image that cannot be read (default: skip)",
    )
    args = parser.parse_args()
    named = {PACK: args.source, "--check": args.check, "--download": args.download}
    named = [job for job, value in named.items() if value]
    if len(named) != 1:
        parser.error("name one of these: the images to pack, a set to --check, one to --download")
    for name, value in vars(args).items():
        if value is not None and named[0] not in (jobs := JOBS.get(name, [PACK])):
            parser.error(f"--{name.replace('_', '-')}: goes with {' or '.join(jobs)}")
    if args.source and not args.out:
        parser.error("--out=DIR: name the folder to make")
    if args.quality and not args.resize:
        parser.error("--quality: goes with --resize, without which files stay as they are")
    for name, value in USUAL.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> int:
    """Parse, then hand over."""
    args = arguments()
    if args.download:
        from convnet import download

        return download.download(args)
    from convnet import packing

    return packing.check(args) if args.check else packing.pack(args)


if __name__ == "__main__":
    cli.run(main)
