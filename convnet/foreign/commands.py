"""What tools/import.py and tools/export.py do once their arguments are read."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from convnet import checkpoint, files, given, runfolder, views
from convnet.cfg import load_text
from convnet.cli import UsageError, check_target
from convnet.foreign import begin, onnx, own, read, safetensors
from convnet.foreign.found import Found, WeightsError
from convnet.foreign.match import mean_of
from convnet.graph import dims
from convnet.net import Net
from convnet.providers import Provider, printable
from convnet.source import Source
from convnet.train import Plan, data_meta

MOST = 1_000_000  # classes
CLASSES = f"must be a number from 1 to {MOST}, or a file with a name a line"
PLAN = Plan(epochs=30, minibatch=64)  # of the training that a net without data may begin


def bring(args) -> int:
    """tools/import.py"""
    if not args.layer_def:
        raise UsageError("--layer-def=FILE.cfg is needed: the net that the weights go into")
    if args.out:
        check_target(args.out, "--out", args.file, kinds=(".h5",))
        if Path(args.out).exists():
            raise UsageError(f"--out={args.out}: is there already; name another file")
    by_hand = _by_hand(args.map)
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set))
    source.check_keys()
    found = read.read(args.file)
    has_data = args.data_path or args.data_provider
    provider = given.provider_of(args, source, 0) if has_data else None
    classes = _classes(args, source, found, provider)
    graph = source.graph({0: _image(args, source, provider)}, len(classes))
    graph.check_no_windows()
    net = Net(graph)
    shape = graph.shapes[graph.feeds[0]]
    found.input = begin.input_of(args, found, shape[2])
    mean = _mean(args, found, shape, provider)
    if found.lost and not args.partial:
        raise WeightsError(
            f"{found.path}: {printable(found.lost[0])}{_more(found.lost)}; nothing written. "
            "--partial leaves such weights out, which makes another net"
        )
    made = begin.fill(net, found, by_hand)
    if made.left and not args.partial:
        raise WeightsError(
            f"{found.path}: has nothing for [{made.left[0].layer}]{_more(made.left)}; nothing "
            "written. --partial leaves such layers as they are initialised"
        )
    net.classes, net.mean = classes, mean
    whole = _checkpoint(net, source, found, provider)
    name = args.out or given.new_folder(None, args.layer_def) / runfolder.name(1, 0)
    try:
        checkpoint.save(name, whole)
    finally:
        if not args.out:
            with contextlib.suppress(OSError):  # it is empty only where nothing was saved
                name.parent.rmdir()
    print(f"{name}: {given.count(len(classes), 'class', 'es')}, the mean is {_said(mean)}")
    return 0


def _more(found: list) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def _by_hand(text: str | None) -> dict[str, str]:
    items = text.split(",") if text else []
    pairs = {item: [part.strip() for part in item.partition("=")] for item in items}
    wrong = next((item for item, parts in pairs.items() if not all(parts)), None)
    if wrong is not None:
        named = repr(wrong) if wrong.strip() else "an empty one"
        raise UsageError(f"--map={text}: must be ours=theirs, several with commas; {named} is not")
    ours = [mine for mine, *_ in pairs.values()]
    twice = next((mine for mine in ours if ours.count(mine) > 1), None)
    if twice:
        raise UsageError(f"--map={text}: {twice} is there twice")
    return {mine: other for mine, _, other in pairs.values()}


def _classes(args, source: Source, found: Found, provider: Provider | None) -> list[str]:
    """Names of the classes: of a file, of the data, or numbers."""
    if provider:
        if args.classes:
            raise UsageError(f"--classes={args.classes}: the data of --data-path has its own")
        return provider.classes
    if args.classes and not args.classes.isdecimal():
        if not Path(args.classes).exists():
            raise UsageError(f"--classes={args.classes}: {CLASSES}; there is no such file")
        names = [line.strip() for line in load_text(args.classes).splitlines() if line.strip()]
        if not names or len(set(names)) < len(names):
            raise UsageError(
                f"--classes={args.classes}: must have a line for each class, all names different"
            )
        return names
    if args.classes and not (len(args.classes) < 8 and 1 <= int(args.classes) <= MOST):
        raise UsageError(f"--classes={args.classes}: {CLASSES}")
    last = found.layers[-1].kernels[0]
    return [str(i) for i in range(int(args.classes or len(last)))]


def _image(args, source: Source, provider: Provider | None) -> tuple | None:
    """(H, W, C) of the images, None where the cfg says it."""
    if provider:
        return provider.size, provider.size, provider.channels
    return source.images(args.size)


def _mean(args, found: Found, shape: tuple, provider: Provider | None) -> np.ndarray:
    """What is subtracted from images."""
    if args.mean == "data":
        if not provider:
            raise UsageError("--mean=data: --data-path=DIR says of which")
        return provider.mean
    try:
        return mean_of(found.input, shape)
    except ValueError as e:
        raise UsageError(f"{args.mean or found.path}: {e}") from None


def _said(mean: np.ndarray) -> str:
    channels = ", ".join(f"{m:.4g}" for m in mean.mean((0, 1), np.float64))
    return channels if (mean == mean[0, 0]).all() else f"an image, {channels} on average"


def _checkpoint(
    net: Net, source: Source, found: Found, provider: Provider | None
) -> checkpoint.Checkpoint:
    """A run that has not begun, as convnet/train.py would go on with it."""
    shape = net.graph.shapes[net.graph.feeds[0]]
    none = {"provider": None, "path": None, "options": {}, "fingerprint": "", "train": 0, "test": 0}
    meta = {
        "source": source.to_dict(),
        "others": [],
        "classes": net.classes,
        "image": list(shape),
        "resize_to": provider.fit if provider else views.default_fit(shape[0]),
        "mirrors": provider.mirrors if provider else True,
        "seed": 0,
        "step": 0,
        "epoch": 1,
        "batch": 0,
        "batches": provider.batch_count("train", PLAN.minibatch) if provider else 1,
        "test_due": False,
        **asdict(replace(PLAN, init_from=str(found.path))),
        "data": data_meta(provider) if provider else none,
        "imported": f"{Path(found.path).name}, of {found.format}",
    }
    arrays = {"weights": net.own_weights(), "momenta": {}, "data": {"mean": net.mean}}
    return checkpoint.Checkpoint(arrays, meta)


def send(args) -> int:
    """tools/export.py"""
    if not (args.onnx or args.safetensors):
        raise UsageError("--onnx=FILE or --safetensors=FILE is needed")
    if (args.layer or args.size) and not args.onnx:
        option = "--layer" if args.layer else "--size"
        raise UsageError(f"{option}: goes with --onnx; --safetensors has all weights")
    saved, path = given.found(args.checkpoint)
    for option in ("onnx", "safetensors"):
        if name := getattr(args, option):
            check_target(name, f"--{option}", path, kinds=(f".{option}",))
    net = given.net_of(saved, path, "cpu")
    if args.onnx:
        _send_onnx(args, net, path)
    if args.safetensors:
        layers = own.read(str(path), saved)
        _write(args.safetensors, "--safetensors", safetensors.of(layers))
        print(f"{args.safetensors}: {given.count(len(layers.layers), 'layer')} with weights")
    return 0


def _send_onnx(args, net: Net, path: Path) -> None:
    layers = args.layer.split(",") if args.layer else [net.output]
    for layer in layers:
        if not layer:
            raise UsageError(f"--layer={args.layer}: a name is empty")
        try:
            net.graph.parts(layer)
        except ValueError as e:
            raise UsageError(f"--layer={layer}: {path}: {e}") from None
    try:
        parts, outputs = onnx.model(net, layers, args.size)
    except ValueError as e:
        raise UsageError(f"--onnx={args.onnx}: {e}") from None
    _write(args.onnx, "--onnx", parts)
    H, W, C = net.graph.shapes[net.graph.feeds[0]]
    image = dims((*(args.size or (H, W)), C))
    told = ", ".join(f"{name} {dims(('N', *sides))}" for name, sides in outputs.items())
    print(f"{args.onnx}: images N x {image}, uint8 -> {told}, float32")


def _write(name: str, option: str, parts: list) -> None:
    try:
        files.replace(Path(name), parts)
    except OSError as e:
        raise UsageError(f"{option}={name}: not written, {files.advice(e)}") from None
