"""What the arguments of a tool name: cfgs, checkpoints, data, the folder of a run."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

from convnet import runfolder
from convnet.cfg import load_text
from convnet.checkpoint import Checkpoint, CheckpointError
from convnet.cli import UsageError
from convnet.graph import Graph
from convnet.net import Net
from convnet.providers import DataOptions, Provider, name_for, printable, provider_class
from convnet.source import Source

# what the meta of a run's checkpoint has
META = {
    *("source", "classes", "image", "resize_to", "mirrors", "seed", "data"),
    *("step", "epoch", "epochs", "batch", "batches", "minibatch", "test_due"),
}


def meta_of(saved: Checkpoint, path: Path) -> dict:
    """What a checkpoint tells of its run; CheckpointError if it is of something else."""
    told = set(saved.meta) >= META and set(saved.arrays) >= {"weights", "momenta", "data"}
    if not told or "mean" not in saved.arrays["data"]:
        raise CheckpointError(f"{path}: a checkpoint, but not of a run of tools/train.py")
    return saved.meta


def net_of(saved: Checkpoint, path: Path, device: str) -> Net:
    """The net of a loaded checkpoint; CheckpointError where its weights are of another."""
    try:
        return Net.from_saved(saved, device)
    except ValueError as e:
        raise CheckpointError(f"{path}: {e}") from None


def as_before(args, meta: dict):
    """Options that were not given keep what the checkpoint's run had. UsageError without data."""
    data = meta["data"]
    if args.data_path is None and args.data_provider is None:
        if not data["provider"]:
            raise UsageError("the net was imported and has no data of its own; --data-path=DIR")
        args.data_path, args.data_provider = data["path"], data["provider"]
    for name, value in {**data["options"], **meta}.items():
        if getattr(args, name, value) is None:
            setattr(args, name, value)
    return args


def say_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def sources_of(args, saved) -> list[Source]:
    """The cfgs of the command line; where none is given, those of the checkpoint."""
    sets, given = tuple(args.set), _files(args.layer_params)
    if args.layer_def:
        names = _files(args.layer_def)
        params = given or [None] * len(names)
        _check_params(args, params, names)
        return [Source.read(name, p, sets) for name, p in zip(names, params)]
    old = [Source.from_dict(d) for d in (saved.meta["source"], *saved.meta.get("others", []))]
    for source in old:
        say_notes(_edited(source.name, source.text, "layer-def"))
        if not given:
            say_notes(_edited(source.params_name, source.params_text, "layer-params"))
    if given:
        _check_params(args, given, old)
        texts = [(name, load_text(name)) for name in given]
        old = [replace(o, params_name=n, params_text=t) for o, (n, t) in zip(old, texts)]
    return [replace(source, overrides=(*source.overrides, *sets)) for source in old]


def _files(text: str | None) -> list[str]:
    """The files of a list with commas; a file may have a comma in its name."""
    return [] if not text else [text] if Path(text).is_file() else text.split(",")


def _check_params(args, params: list, names: list) -> None:
    if len(params) != len(names):
        raise UsageError(
            f"--layer-params={args.layer_params}: {count(len(params), 'file')} for "
            f"{count(len(names), 'layer definition')}; each has its own"
        )


def other_graph(source: Source, provider: Provider) -> Graph:
    """The graph of a network beside the first; its images are those of the first, resized."""
    size = source.image_size()[0] or provider.size
    if size > provider.size:
        raise UsageError(
            f"{source.name}: imgSize={size} is more than {provider.size} of the first layer "
            "definition, of whose images the smaller ones are made; name the largest first"
        )
    return source.graph({0: (size, size, provider.channels)}, len(provider.classes))


def _edited(name: str, text: str, option: str) -> list[str]:
    """A note if a file of a checkpoint's run is not what it was then."""
    path = Path(name)
    if not name or not path.is_file() or load_text(path) == text:
        return []
    return [f"{name} has changed since; the run keeps what it had (--{option}={name} to take it)"]


def provider_of(args, source: Source, seed: int, image: tuple[int, int] | None = None) -> Provider:
    """The data of the command line: by its name, or by what the folder looks like.

    image: side and channels of what the net takes, where the net is there already.
    """
    size, channels = image or source.image_size()
    fields = ("crop", "mirror", "color_noise", "test_fraction", "workers", "on_bad_image")
    given = {name: value for name in fields if (value := getattr(args, name, None)) is not None}
    name = args.data_provider or name_for(args.data_path)
    made = provider_class(name)
    made.name = name
    return made(args.data_path, size, channels, DataOptions(seed=seed, **given))


def feeds_of(provider: Provider) -> dict:
    return {0: (provider.size, provider.size, provider.channels)}


def new_folder(wanted: str | None, def_name: str) -> Path:
    """The folder of a new run: the one asked for if it holds none yet, else runs/<name>_<n>."""
    if wanted:
        folder = Path(wanted)
        try:
            holds = runfolder.newest(folder)
        except OSError as e:
            raise CheckpointError(f"--save-path={wanted[:60]}: {e.strerror.lower()}") from None
        if holds:
            raise CheckpointError(
                f"--save-path={wanted} holds a run already: --resume={wanted} goes on with it, "
                "another folder begins a new one"
            )
    else:
        stem, n = Path(def_name).stem, 1
        while (folder := Path("runs") / f"{stem}_{n:03d}").exists():
            n += 1
    try:
        folder.mkdir(parents=True, exist_ok=bool(wanted))
    except OSError as e:
        raise CheckpointError(f"{folder}: cannot be made, {e.strerror.lower()}") from None
    return folder


def trained(args, name: str) -> tuple[Path, Net, Provider]:
    """The net of a checkpoint and the data that it is to be tested with."""
    saved, path, notes = runfolder.find(name)
    say_notes(notes)
    args = as_before(copy.copy(args), meta_of(saved, path))
    own = args.data_path in (None, saved.meta["data"]["path"])
    net = net_of(saved, path, args.device)
    provider = provider_of(args, Source.from_dict(saved.meta["source"]), saved.meta["seed"])
    if provider.classes != net.classes:
        raise UsageError(
            f"{path} was trained on the classes {some(net.classes)}; "
            f"the data has {some(provider.classes)}"
        )
    if own and provider.fingerprint != saved.meta["data"]["fingerprint"]:
        note = "the images have changed since the run; it may have been trained on some of these"
        say_notes([f"{provider.path}: {note}"])
    if args.split:
        provider.test_with(args.split)
    return path, net, provider


def some(words: list[str]) -> str:
    return ", ".join(map(printable, words[:5])) + (f" ... ({len(words)})" if len(words) > 5 else "")


def count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{plural if number != 1 else ''}"
