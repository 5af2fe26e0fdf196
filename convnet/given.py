"""What the arguments of a tool name: cfgs, checkpoints, data, the folder of a run."""

import copy
import itertools
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from convnet import runfolder
from convnet.cfg import load_text
from convnet.checkpoint import Checkpoint, CheckpointError
from convnet.cli import UsageError
from convnet.graph import Graph
from convnet.net import Net
from convnet.providers import DataError, DataOptions, Provider, name_for, printable, provider_class
from convnet.source import Source, beside
from convnet.train import Plan

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


class Trained(NamedTuple):
    """A checkpoint of a run, where it is, and its net."""

    saved: Checkpoint
    path: Path
    net: Net

    @property
    def meta(self) -> dict:
        """What the checkpoint tells of its run."""
        return self.saved.meta


def found(name: str) -> tuple[Checkpoint, Path]:
    """The checkpoint of a run that a user means, and where it is. Raises CheckpointError."""
    saved, path, notes = runfolder.find(name)
    say_notes(notes)
    meta_of(saved, path)
    return saved, path


def opened(name: str, device: str) -> Trained:
    """The same with its net. Raises CheckpointError."""
    saved, path = found(name)
    return Trained(saved, path, net_of(saved, path, device))


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


def words_of(meta: dict) -> list[str]:
    """The options of tools/train.py that begin such a run: what as_before reads back."""
    sources, data, said = _sources(meta), meta["data"], {}
    said["layer-def"] = ",".join(source.name for source in sources)
    if any(source.params_name not in ("", str(beside(source.name))) for source in sources):
        said["layer-params"] = ",".join(source.params_name for source in sources)
    if data["path"] is not None and data["provider"] != "digits":
        said["data-path"] = data["path"]
    if data["provider"] != _recognised(data["path"]):
        said["data-provider"] = data["provider"]
    of_data = ("crop", "mirror", "color_noise", "test_fraction", "on_bad_image")
    options = data["options"]
    if not data.get("divided", True):  # the data has a test set of its own
        options = {**options, "test_fraction": DataOptions().test_fraction}
    said |= _unusual(options, DataOptions(), of_data)
    said |= {name: meta[name] for name in ("epochs", "minibatch", "seed")}
    of_plan = ("sizes", "switch", "test_freq", "keep", "init_from")
    said |= _unusual(meta, Plan(epochs=1), of_plan)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in said.items()]
    words += [f"--set={override}" for override in sources[0].overrides]
    return words + ["--tensorboard"] * meta.get("tensorboard", False)


def _recognised(path: str | None) -> str:
    """The provider that a path means without --data-provider; "" where nobody may look at it."""
    try:
        return name_for(path)
    except DataError:
        return ""


def changes_of(meta: dict) -> list[str]:
    """What resumes of the run set otherwise, in words, a line each."""
    legs, found = [meta], []
    for then in reversed(meta.get("earlier", [])):  # what was another before
        legs.insert(0, {**legs[0], **then})
    for before, after in itertools.pairwise(legs):
        if words := _changed(words_of(before), words_of(after)) + _edited_between(before, after):
            found.append(f"after {count(before['step'], 'batch', 'es')} with {', '.join(words)}")
    return found


def _changed(old: list[str], new: list[str]) -> list[str]:
    """The options that are others; of --set, whose order counts, what was added, or else all."""
    before, now = ([word for word in words if word.startswith("--set=")] for words in (old, new))
    begun = len(before) if now[: len(before)] == before else 0
    names = {word.partition("=")[0] for word in new if word not in now} | {*now}
    gone = [word for word in old if word.partition("=")[0] not in names and word not in names]
    words = [word for word in new if word not in (*old, *now)] + now[begun:]
    return words + [f"without {word}" for word in gone]


def _edited_between(before: dict, after: dict) -> list[str]:
    """What no option tells of: that a file has another text."""
    found = []
    for old, new in zip(_sources(before), _sources(after)):
        found += [f"another text of {new.name}"] * (old.text != new.text)
        if (old.params_name, old.params_text) != (new.params_name, new.params_text):
            found.append(
                f"the rates in {new.params_name}" if new.params_name else "no file of rates"
            )
    return found


def _sources(meta: dict) -> list[Source]:
    """The cfgs of a run."""
    return [Source.from_dict(d) for d in (meta["source"], *meta.get("others", []))]


def _unusual(told: dict, usual: DataOptions | Plan, names: tuple[str, ...]) -> dict[str, Any]:
    """The options among these that are not as they are where none is given, as words."""
    found = {name: told.get(name, getattr(usual, name)) for name in names}
    found = {name: value for name, value in found.items() if value != getattr(usual, name)}
    return {k: ("no", "yes")[v] if isinstance(v, bool) else v for k, v in found.items()}


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
    old = _sources(saved.meta)
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


def check_fraction(fraction: float | None, provider: Provider, before: dict | None = None) -> None:
    """UsageError for a --test-fraction of data that has images to test with.

    before: the options of the data of a run that goes on, or is tested.
    """
    known = (before or {}).get("test_fraction")
    if fraction not in (None, known) and not provider.divided:
        raise UsageError(f"--test-fraction={fraction}: {printable(str(provider.path))} has images "
                         "to test with of its own; leave the option away")  # fmt: skip


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
        _made(folder, old_too=True)
        return folder
    stem = Path(def_name).stem
    folders = (Path("runs") / f"{stem}_{n:03d}" for n in itertools.count(1))
    return next(folder for folder in folders if _made(folder))


def _made(folder: Path, old_too: bool = False) -> bool:
    """Make a folder; False where it is there, perhaps since an instant ago of another run."""
    try:
        folder.mkdir(parents=True, exist_ok=old_too)
    except OSError as e:
        if isinstance(e, FileExistsError) and not old_too and os.path.lexists(folder):
            return False
        raise CheckpointError(f"{folder}: cannot be made, {e.strerror.lower()}") from None
    return True


def data_of(args, run: Trained) -> Provider:
    """The data that a net is to be tested with. Raises DataError, UsageError."""
    args = as_before(copy.copy(args), run.meta)
    own = args.data_path in (None, run.meta["data"]["path"])
    provider = provider_of(args, Source.from_dict(run.meta["source"]), run.meta["seed"])
    if provider.classes != run.net.classes:
        raise UsageError(
            f"{run.path} was trained on the classes {some(run.net.classes)}; "
            f"the data has {some(provider.classes)}"
        )
    if own and provider.fingerprint != run.meta["data"]["fingerprint"]:
        note = "the images have changed since the run; it may have been trained on some of these"
        say_notes([f"{provider.path}: {note}"])
    check_fraction(args.test_fraction, provider, run.meta["data"]["options"])
    if args.split:
        provider.test_with(args.split)
    return provider


def some(words: list[str]) -> str:
    return ", ".join(map(printable, words[:5])) + (f" ... ({len(words)})" if len(words) > 5 else "")


def count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{plural if number != 1 else ''}"
