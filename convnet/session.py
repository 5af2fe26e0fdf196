"""What the tools do once their arguments are read: set up a net with its data and run it."""

import time
from pathlib import Path

import numpy as np

from convnet import board, files, given, results, runfolder, summary
from convnet import features as feats
from convnet.ahead import compile_kernels
from convnet.cli import UsageError, check_target, command
from convnet.foreign.begin import first_weights
from convnet.net import Net
from convnet.providers import DataError, DataOptions, name_for
from convnet.providers._pictures import Pictures, has_no_classes
from convnet.report import Report
from convnet.sizes import Turns
from convnet.source import Source
from convnet.train import Plan, Run

# (epochs, minibatch) where the command line says nothing
USUAL = {"digits": (4, 16)}
USUAL_ELSEWHERE = (30, 64)


def train(args) -> int:
    """tools/train.py"""
    saved = None
    if args.resume:
        if args.save_path:
            raise UsageError(f"--save-path={args.save_path}: --resume goes on in the run's folder")
        if args.init_from:
            raise UsageError(f"--init-from={args.init_from}: --resume has the weights of the run")
        saved, path = given.found(args.resume)
        if not saved.meta["data"]["provider"]:
            raise UsageError(f"{path}: was imported without data; --init-from={path} trains it")
        args = given.as_before(args, saved.meta)
    elif not args.layer_def:
        raise UsageError("--layer-def=FILE.cfg is needed (or --resume=RUN to go on with a run)")
    source, *others = given.sources_of(args, saved)
    source.check_keys()
    if args.tensorboard:
        board.writer_class()  # before a folder is made
    provider = given.provider_of(args, source, args.seed or 0)
    given.check_fraction(args.test_fraction, provider, saved and saved.meta["data"]["options"])
    if not provider.train.size:
        raise DataError(f"{provider.path}: there is no train/ in it, without which it only tests")
    graph = source.graph(given.feeds_of(provider), len(provider.classes))
    graph.check_no_windows()
    if not saved:
        results.check_names(graph)
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
        bool(args.tensorboard),
        args.init_from or "",
    )
    print(summary.table(graph, plan.minibatch))
    net = Net(graph, args.device, args.seed or 0)
    if args.init_from and not saved:
        first_weights(net, args.init_from)
    turns = Turns(net, [given.other_graph(o, provider) for o in others], plan.sizes, plan.switch)
    if args.switch and len(turns.sizes) < 2 and not saved:
        raise UsageError(f"--switch={args.switch}: there is one size only; --sizes= gives others")
    for note in turns.notes:
        print(f"note: {note}")
    folder = Path(path).parent if saved else given.new_folder(args.save_path, source.name)
    with runfolder.run_lock(folder):
        runfolder.clean(folder)
        run = Run(folder, source, net, provider, plan, turns, others)
        if saved:
            run.restore(saved)
            for old in runfolder.set_aside(folder, run.at.epoch, saved.meta["batch"]):
                given.say_notes([f"{old} is newer than {path}; it is {old.name}.old now"])
        _say_what(run)
        return _train(run)


def _say_what(run: Run) -> None:
    """What is about to happen, with what, and where it goes."""
    provider, plan = run.provider, run.plan
    print(
        f"{provider.name}: {provider.train.size:,} images to train on, {provider.test.size:,} to "
        f"test on, {len(provider.classes)} classes\n"
        f"{given.count(plan.epochs, 'epoch')} of {given.count(run.batches, 'batch', 'es')} of "
        f"{plan.minibatch}, on {run.net.device.name}, seed {run.net.seed}\n"
        + (f"{run.turns}\n" if len(run.turns.sizes) > 1 else "")
        + f"everything goes to {run.folder}/"
    )
    if run.net.step:
        print(f"going on after {run.at.epoch}.{run.at.batch} ({run.progress:.2%})")


def _train(run: Run) -> int:
    if run.done and not run.test_due:
        print(
            f"nothing to do: {given.count(run.at.epoch, 'epoch')} of {run.plan.epochs} are "
            f"trained; --resume={run.folder} --epochs=<more> trains on"
        )
        return 0
    began, report = time.perf_counter(), Report(run)
    given.say_notes(report.notes)
    try:
        compile_kernels(run.net, run.plan.minibatch, report.say)
        run.train(report)
    finally:
        report.close()
        run.provider.close()
    if run.asked_to_stop:
        print(f"stopped; go on with: {command('train', f'--resume={run.folder}')}")
        return 128 + run.asked_to_stop
    print(f"trained in {_duration(time.perf_counter() - began)}.{_in_words(run, report)}")
    print(
        f"Checkpoints, metrics.jsonl and results.csv are in {run.folder}/. Next:\n"
        f"  {command('test', run.folder, '--multiview')}\n"
        f"  {command('show', 'report', run.folder)}"
    )
    if run.provider.name == "digits":
        again = command("train", f"--layer-def={run.source.name}")
        print(f"  {again} --data-path=<your images>/")
    return 0


def _duration(seconds: float) -> str:
    return given.count(round(seconds), "second") if seconds < 100 else f"{seconds / 60:.1f} minutes"


def _in_words(run: Run, report: Report) -> str:
    """The last test error next to what guessing would give."""
    for cost, row in report.last_test.items():
        kinds = run.kinds[cost]
        if "error" in kinds:
            chance = 1 - 1 / len(run.provider.classes)
            error = row[kinds.index("error")]
            return f" Test error {error:.2%}, by chance it would be {chance:.0%}."
    return ""


def features(args) -> int:
    """tools/features.py"""
    if not args.out or not args.layer:
        raise UsageError("--layer=NAME and --out=FILE.h5 are needed")
    check_target(args.out, "--out")
    run = given.opened(args.checkpoint, args.device)
    args, net, path = given.as_before(args, run.meta), run.net, run.path
    source = Source.from_dict(run.meta["source"])
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
        provider = given.provider_of(args, source, run.meta["seed"], image)
    images, out = feats.which(provider, args.split), Path(args.out)
    files.sweep(out.parent)
    print(f"{path}: {args.layer} of {given.count(len(images), 'image')}, view {args.view}")
    about = feats.attributes(net, source, path, provider, layers, look, args.mean)
    done = feats.write(out, net, provider, images, layers, look, args.dtype, args.minibatch, about)
    provider.close()
    left = f"; {given.count(len(images) - done, 'image')} left out" if done < len(images) else ""
    print(f"{given.count(done, 'row')} in {out}{left}")
    return 0


def check(args) -> int:
    """tools/check.py"""
    if args.keys:
        print(summary.keys_of(args.keys))
        return 0
    if not args.layer_def:
        raise UsageError("--layer-def=FILE.cfg is needed (or --keys)")
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set))
    images = {0: source.images(args.size and (args.size, args.size))}
    graph = source.graph(images, source.class_count(args.classes))
    for remark in graph.remarks:
        print(f"note: {remark}")
    print(summary.table(graph, args.minibatch))
    return _check_gradients(graph, args.seed) if args.grad else 0


def _check_gradients(graph, seed: int) -> int:
    from convnet import gradcheck

    graph.check_no_windows()
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
