"""tools/test.py: what trained nets make of test images, by one view or many, alone or averaged."""

from pathlib import Path

from convnet import given, ilsvrc, multiview, scores
from convnet.cli import UsageError, check_target
from convnet.multiview import Multiview
from convnet.net import Net


def test(args) -> int:
    """tools/test.py"""
    if args.predictions:
        check_target(args.predictions, "--predictions")
    plan, found = _plan(args), []
    if len(args.checkpoints) > 1:
        _check_same(args, plan)
    for name in args.checkpoints:
        run = given.opened(name, args.device)
        path, net = run.path, run.net
        with given.data_of(args, run) as provider:
            look = _look(args, path, net, plan)
            submission = ilsvrc.Submission(args.submission, provider) if args.submission else None
            total = provider.train.size + provider.test.size
            what = f"{provider.test.size:,} test images of {total:,}"
            print(f"{path}: {what}, {_views_of(args, net)}", flush=True)
            found.append(scores.predict(net, provider, look, args.minibatch))
        labels = provider.test.labels[found[-1].indices]
        if len(args.checkpoints) > 1 and labels.min() >= 0:
            print(scores.in_a_line(found[-1].probs, labels), flush=True)
    test, classes = provider.test, net.classes
    indices, probs = scores.average(found) if len(found) > 1 else found[0]
    if len(found) > 1:
        print(f"average of {len(found)} nets")
    if len(indices) < test.size:
        print(f"{len(indices):,} of {test.size:,} images could be read, and count")
    scores.print_scores(probs, test.labels[indices], classes)
    keys = [test.keys[i] for i in indices]
    if args.predictions:
        scores.write_csv(Path(args.predictions), probs, test.labels[indices], keys, classes)
    if submission:
        submission.write(probs, keys)
    return 0


def _check_same(args, plan: multiview.Plan | None) -> None:
    """Before the first is tested: UsageError where nets cannot be averaged, or tested at all."""
    first = None
    for name in args.checkpoints:
        run = given.opened(name, args.device)
        path, net, provider = run.path, run.net, given.data_of(args, run)
        provider.close()
        _look(args, path, net, plan)
        first = first or (path, net.classes, provider.test.keys)
        other, classes, keys = first
        if net.classes != classes:
            raise UsageError(
                f"{path} has the classes {given.some(net.classes)}; "
                f"{other} has {given.some(classes)}"
            )
        if list(provider.test.keys) != list(keys):
            raise UsageError(
                f"{path} and {other} have different test images; --data-path=DIR names the same "
                "for all"
            )


def _plan(args) -> multiview.Plan | None:
    """The views that --multiview or --views asks for."""
    if args.multiview and args.views:
        raise UsageError("--multiview and --views both say which views; give one of them")
    if not (args.multiview or args.views):
        alone = next((n for n in ("views_of", "semantics") if getattr(args, n)), None)
        if alone:
            raise UsageError(f"--{alone.replace('_', '-')}: goes with --multiview or --views")
        return None
    if args.semantics and args.views_of == "images":
        raise UsageError(
            f"--semantics={args.semantics}: is about views of maps, not of --views-of=images"
        )
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
        return Multiview(net, plan, args.semantics or "crop", args.views_of, args.minibatch)
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
