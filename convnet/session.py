"""What the tools do once their arguments are read: set up a net with its data and run it."""

import copy
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from convnet import features as feats
from convnet import files, ilsvrc, multiview, runfolder, scores, summary
from convnet.cfg import load_text
from convnet.checkpoint import Checkpoint, CheckpointError
from convnet.cli import UsageError, check_target
from convnet.multiview import Multiview
from convnet.net import Net
from convnet.providers import DataError, DataOptions, Provider, name_for, printable, provider_class
from convnet.providers._pictures import Pictures, has_no_classes
from convnet.report import Report
from convnet.sgd import sgd_step
from convnet.sizes import Turns
from convnet.source import Source
from convnet.train import Plan, Run

# (epochs, minibatch) where the command line says nothing
USUAL = {"digits": (4, 16)}
USUAL_ELSEWHERE = (30, 64)
# what the meta of a run's checkpoint has
META = {
    *("source", "classes", "image", "resize_to", "mirrors", "seed", "data"),
    *("step", "epoch", "epochs", "batch", "batches", "minibatch", "test_due"),
}


def train(args) -> int:
    """tools/train.py"""
    saved = None
    if args.resume:
        if args.save_path:
            raise UsageError(f"--save-path={args.save_path}: --resume goes on in the run's folder")
        saved, path, notes = runfolder.find(args.resume)
        _say_notes(notes)
        args = _as_before(args, _meta(saved, path))
    elif not args.layer_def:
        raise UsageError("--layer-def=FILE.cfg is needed (or --resume=RUN to go on with a run)")
    source, *others = _sources(args, saved)
    source.check_keys()
    provider = _provider(args, source, args.seed or 0)
    if not provider.train.size:
        raise DataError(f"{provider.path}: there is no train/ in it, without which it only tests")
    graph = source.graph(_feeds(provider), len(provider.classes))
    for remark in graph.remarks:
        print(f"note: {remark}")
    epochs, minibatch = USUAL.get(provider.name, USUAL_ELSEWHERE)
    plan = Plan(
        args.epochs or epochs,
        args.minibatch or minibatch,
        args.test_freq or 0,
        args.keep or 2,
        args.sizes or "",
        args.switch or "epoch",
    )
    print(summary.table(graph, plan.minibatch))
    net = Net(graph, args.device, args.seed or 0)
    turns = Turns(net, [_other_graph(o, provider) for o in others], plan.sizes, plan.switch)
    if args.switch and len(turns.sizes) < 2 and not saved:
        raise UsageError(f"--switch={args.switch}: there is one size only; --sizes= gives others")
    for note in turns.notes:
        print(f"note: {note}")
    folder = Path(path).parent if saved else _new_folder(args.save_path, source.name)
    with runfolder.run_lock(folder):
        runfolder.clean(folder)
        run = Run(folder, source, net, provider, plan, turns, others)
        if saved:
            run.restore(saved)
            for old in runfolder.set_aside(folder, run.at.epoch, saved.meta["batch"]):
                _say_notes([f"{old} is newer than {path}; it is {old.name}.old now"])
        _say_what(run)
        return _train(run)


def _say_what(run: Run) -> None:
    """What is about to happen, with what, and where it goes."""
    provider, plan = run.provider, run.plan
    print(
        f"{provider.name}: {provider.train.size:,} images to train on, {provider.test.size:,} to "
        f"test on, {len(provider.classes)} classes\n"
        f"{_count(plan.epochs, 'epoch')} of {_count(run.batches, 'batch', 'es')} of "
        f"{plan.minibatch}, on {run.net.device.name}, seed {run.net.seed}\n"
        + (f"{run.turns}\n" if len(run.turns.sizes) > 1 else "")
        + f"everything goes to {run.folder}/"
    )
    if run.net.step:
        print(f"going on after {run.at.epoch}.{run.at.batch} ({run.progress:.2%})")


def _train(run: Run) -> int:
    if run.done and not run.test_due:
        print(
            f"nothing to do: {_count(run.at.epoch, 'epoch')} of {run.plan.epochs} are trained; "
            f"--resume={run.folder} --epochs=<more> trains on"
        )
        return 0
    began, report = time.perf_counter(), Report(run)
    if not sgd_step.on_disk and run.net.device.name == "cpu":
        report.say("compiling the kernels of the net; this takes a while, at the first start only")
    try:
        run.train(report)
    finally:
        report.close()
        run.provider.close()
    if run.asked_to_stop:
        print(f"stopped; go on with: {python_here()} tools/train.py --resume={run.folder}")
        return 128 + run.asked_to_stop
    print(f"trained in {_duration(time.perf_counter() - began)}.{_in_words(run, report)}")
    print(
        f"Checkpoints and metrics.jsonl are in {run.folder}/. Next:\n"
        f"  {python_here()} tools/test.py {run.folder} --multiview"
    )
    if run.provider.name == "digits":
        again = f"{python_here()} tools/train.py --layer-def={run.source.name}"
        print(f"  {again} --data-path=<your images>/")
    return 0


def python_here() -> str:
    """How a user calls this Python again: .venv/bin/python, or just python."""
    here, own = Path.cwd(), Path(sys.executable)
    return str(own.relative_to(here)) if own.is_relative_to(here) else "python"


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{plural if number != 1 else ''}"


def _duration(seconds: float) -> str:
    return _count(round(seconds), "second") if seconds < 100 else f"{seconds / 60:.1f} minutes"


def _in_words(run: Run, report: Report) -> str:
    """The last test error next to what guessing would give."""
    for cost, row in report.last_test.items():
        kinds = run.kinds[cost]
        if "error" in kinds:
            chance = 1 - 1 / len(run.provider.classes)
            error = row[kinds.index("error")]
            return f" Test error {error:.2%}, by chance it would be {chance:.0%}."
    return ""


def test(args) -> int:
    """tools/test.py"""
    if args.predictions:
        check_target(args.predictions, "--predictions")
    plan = _plan(args)
    found, first, submission = [], None, None
    for name in args.checkpoints:
        path, net, provider = _trained(args, name)
        with provider:
            first = first or (path, net, provider)
            _check_same(first, path, net, provider)
            look = _look(args, path, net, plan)
            if args.submission:
                submission = ilsvrc.Submission(args.submission, provider)
            total = provider.train.size + provider.test.size
            what = f"{provider.test.size:,} test images of {total:,}"
            print(f"{path}: {what}, {_views_of(args, net)}", flush=True)
            found.append(scores.predict(net, provider, look, args.minibatch))
        labels = provider.test.labels[found[-1].indices]
        if len(args.checkpoints) > 1 and labels.min() >= 0:
            print(scores.in_a_line(found[-1].probs, labels), flush=True)
    test, classes = first[2].test, first[1].classes
    indices, probs = scores.average(found) if len(found) > 1 else found[0]
    if len(found) > 1:
        print(f"average of {len(found)} nets")
    scores.print_scores(probs, test.labels[indices], classes)
    keys = [test.keys[i] for i in indices]
    if args.predictions:
        scores.write_csv(Path(args.predictions), probs, test.labels[indices], keys, classes)
    if submission:
        submission.write(probs, keys)
    return 0


def _trained(args, name: str) -> tuple[Path, Net, Provider]:
    """The net of a checkpoint and the data that it is to be tested with."""
    saved, path, notes = runfolder.find(name)
    _say_notes(notes)
    args = _as_before(copy.copy(args), _meta(saved, path))
    own = args.data_path in (None, saved.meta["data"]["path"])
    net = _net(saved, path, args.device)
    provider = _provider(args, Source.from_dict(saved.meta["source"]), saved.meta["seed"])
    if provider.classes != net.classes:
        raise UsageError(
            f"{path} was trained on the classes {_some(net.classes)}; "
            f"the data has {_some(provider.classes)}"
        )
    if own and provider.fingerprint != saved.meta["data"]["fingerprint"]:
        note = "the images have changed since the run; it may have been trained on some of these"
        _say_notes([f"{provider.path}: {note}"])
    if args.split:
        provider.test_with(args.split)
    return path, net, provider


def _check_same(first: tuple, path: Path, net: Net, provider: Provider) -> None:
    """UsageError where nets whose predictions are averaged do not see the same test images."""
    other, theirs, data = first
    if net.classes != theirs.classes:
        raise UsageError(
            f"{path} has the classes {_some(net.classes)}; {other} has {_some(theirs.classes)}"
        )
    if list(provider.test.keys) != list(data.test.keys):
        raise UsageError(
            f"{path} and {other} have different test images; --data-path=DIR names the same for all"
        )


def _plan(args) -> multiview.Plan | None:
    """The views that --multiview or --views asks for."""
    if args.multiview and args.views:
        raise UsageError("--multiview and --views both say which views; give one of them")
    if not (args.multiview or args.views):
        return None
    try:
        return multiview.read_plan(args.views) if args.views else multiview.plan(args.multiview)
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror.lower() if isinstance(e, OSError) else "is no text"
        raise UsageError(f"--views={args.views}: {why}") from None
    except ValueError as e:
        raise UsageError(str(e)) from None


def _look(args, path: Path, net: Net, plan: multiview.Plan | None) -> Multiview | None:
    """How the net is to look at the images, where not at their centre alone."""
    if plan is None:
        return None
    try:
        return Multiview(net, plan, args.semantics, args.views_of, args.minibatch)
    except ValueError as e:
        raise UsageError(f"{path}: {e}") from None


def _views_of(args, net: Net) -> str:
    """What a net sees of each image, in words."""
    if args.views:
        return f"views of {args.views}"
    if not args.multiview:
        return "1 view"
    if args.multiview == "full":
        return "the whole image"
    return f"{args.multiview} views" + ("" if net.mirror else ", those without a mirror")


def features(args) -> int:
    """tools/features.py"""
    if not args.out or not args.layer:
        raise UsageError("--layer=NAME and --out=FILE.h5 are needed")
    check_target(args.out, "--out")
    saved, path, notes = runfolder.find(args.checkpoint)
    _say_notes(notes)
    args = _as_before(args, _meta(saved, path))
    net, source = _net(saved, path, args.device), Source.from_dict(saved.meta["source"])
    if args.mean is not None:
        net.mean = np.full_like(net.mean, args.mean)
    look = net.look(args.view, args.scale)
    feats.check_look(look)
    layers = feats.wanted(net, args.layer, look)
    image = net.graph.shapes[net.graph.feeds[0]][1:]
    name = args.data_provider or name_for(args.data_path)
    if name == "images" and not args.data_provider and has_no_classes(args.data_path):
        options = DataOptions(workers=args.workers, on_bad_image=args.on_bad_image or "skip")
        provider = Pictures(args.data_path, *image, options)
    else:
        provider = _provider(args, source, saved.meta["seed"], image)
    images, out = feats.which(provider, args.split), Path(args.out)
    files.sweep(out.parent)
    print(f"{path}: {args.layer} of {_count(len(images), 'image')}, view {args.view}")
    about = feats.attributes(net, source, path, provider, layers, look, args.mean)
    done = feats.write(out, net, provider, images, layers, look, args.dtype, args.minibatch, about)
    provider.close()
    left = f"; {_count(len(images) - done, 'image')} left out" if done < len(images) else ""
    print(f"{_count(done, 'row')} in {out}{left}")
    return 0


def check(args) -> int:
    """tools/check.py"""
    if args.keys:
        print(summary.keys_of(args.keys))
        return 0
    if not args.layer_def:
        raise UsageError("--layer-def=FILE.cfg is needed (or --keys)")
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set))
    size, channels = source.image_size()
    size = args.size or size
    classes = args.classes or (10 if "classes" in source.text else None)
    graph = source.graph({0: (size, size, channels) if size else None}, classes)
    for remark in graph.remarks:
        print(f"note: {remark}")
    print(summary.table(graph, args.minibatch))
    return _check_gradients(graph, args.seed) if args.grad else 0


def _check_gradients(graph, seed: int) -> int:
    from convnet import gradcheck

    net, rng = Net(graph, seed=seed), np.random.default_rng(seed)
    images = rng.normal(0, 60, (2, *graph.shapes[graph.feeds[0]]))
    gaps = gradcheck.check(net, images, rng.integers(0, max(1, len(net.classes)), 2))
    if not gaps:
        raise UsageError("--grad: no weight of this net learns; epsW and epsB are 0")
    width = max(len(gap.name) for gap in gaps)
    print(f"\n{'array':{width}}  {'analytic':>14}  {'numeric':>14}  relative error")
    for gap in gaps:
        print(f"{gap.name:{width}}  {gap.analytic:14.6e}  {gap.numeric:14.6e}  {gap.error:.1e}")
    bad = [gap.name for gap in gaps if gap.error > 1e-4]
    print(f"\n{len(gaps) - len(bad)} of {len(gaps)} arrays pass" + (f"; not {bad}" if bad else ""))
    return 1 if bad else 0


# -------------------------------------------------------------------- helpers


def _meta(saved: Checkpoint, path: Path) -> dict:
    """What a checkpoint tells of its run; CheckpointError if it is of something else."""
    told = set(saved.meta) >= META and set(saved.arrays) >= {"weights", "momenta", "data"}
    if not told or "mean" not in saved.arrays["data"]:
        raise CheckpointError(f"{path}: a checkpoint, but not of a run of tools/train.py")
    return saved.meta


def _net(saved: Checkpoint, path: Path, device: str) -> Net:
    """The net of a loaded checkpoint; CheckpointError where its weights are of another."""
    try:
        return Net.from_saved(saved, device)
    except ValueError as e:
        raise CheckpointError(f"{path}: {e}") from None


def _as_before(args, meta: dict):
    """Options that were not given keep what the checkpoint's run had."""
    data = meta["data"]
    if args.data_path is None and args.data_provider is None:
        args.data_path, args.data_provider = data["path"], data["provider"]
    for name, value in {**data["options"], **meta}.items():
        if getattr(args, name, value) is None:
            setattr(args, name, value)
    return args


def _say_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _sources(args, saved) -> list[Source]:
    """The cfgs of the command line; where none is given, those of the checkpoint."""
    sets, given = tuple(args.set), _files(args.layer_params)
    if args.layer_def:
        names = _files(args.layer_def)
        params = given or [None] * len(names)
        _check_params(args, params, names)
        return [Source.read(name, p, sets) for name, p in zip(names, params)]
    old = [Source.from_dict(d) for d in (saved.meta["source"], *saved.meta.get("others", []))]
    for source in old:
        _say_notes(_edited(source.name, source.text, "layer-def"))
        if not given:
            _say_notes(_edited(source.params_name, source.params_text, "layer-params"))
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
            f"--layer-params={args.layer_params}: {_count(len(params), 'file')} for "
            f"{_count(len(names), 'layer definition')}; each has its own"
        )


def _other_graph(source: Source, provider: Provider):
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


def _provider(args, source: Source, seed: int, image: tuple[int, int] | None = None) -> Provider:
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


def _feeds(provider: Provider) -> dict:
    return {0: (provider.size, provider.size, provider.channels)}


def _new_folder(wanted: str | None, def_name: str) -> Path:
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


def _some(words: list[str]) -> str:
    return ", ".join(map(printable, words[:5])) + (f" ... ({len(words)})" if len(words) > 5 else "")
