"""How well features tell classes apart that their net has never seen: the paper's transfer tests.

voc       the classes of PASCAL VOC; an image may be of several. Mean average precision.
random    so many images of each class to train on and some to test with, drawn several times.
          Mean accuracy of the classes, its mean and standard deviation over the draws.
file      the training and test images of the feature file. Mean accuracy of the classes.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convnet import __version__, features, files, svm, voc
from convnet.ap import average_precision
from convnet.cli import UsageError, check_target
from convnet.features import Features
from convnet.providers import DataError, printable

CALTECH = {"per_class": 30, "test_per_class": 50, "splits": 10}


class Row(NamedTuple):
    """What is found of a class; figures are shares, of 1."""

    name: str
    train: int  # positive training images; mean over draws
    test: int
    figures: dict[str, float]


def classify(args) -> int:
    """tools/svm_classify.py"""
    if not args.features:
        raise UsageError("--features=FILE.h5 is needed; tools/features.py makes one")
    for name, value in CALTECH.items() if args.caltech else ():
        setattr(args, name, getattr(args, name) or value)
    random = args.per_class is not None
    if args.voc and random:
        raise UsageError("--voc has its own training and test images; no --caltech, no --per-class")
    alone = next((n for n in ("test_per_class", "splits") if getattr(args, n) and not random), None)
    if alone:
        raise UsageError(f"--{alone.replace('_', '-')}: goes with --per-class or --caltech")
    if args.json:
        check_target(args.json, "--json", args.features)
    svm.check()
    found = features.read(args.features, args.layer)
    rows = svm.normalised(found.rows) if args.norm == "l2" else found.rows
    found = found._replace(rows=rows)
    about = found.about
    print(
        f"{args.features}: {args.layer or about['layer']}, view {about['view']}, "
        f"{len(rows):,} rows of {rows.shape[1]:,} numbers; norm {args.norm}, C {args.C}"
    )
    how = _voc if args.voc else _random if random else _of_the_file
    told, summary = how(args, found)
    summary["auto"] = args.C == "auto"
    _print(told, summary)
    if args.json:
        _write_json(args, about, told, summary)
    return 0


def _voc(args, found: Features) -> tuple[list[Row], dict[str, Any]]:
    root, sets = Path(args.voc), tuple(args.voc_sets.split(","))
    if len(sets) != 2 or not all(sets) or sets[0] == sets[1]:
        raise UsageError(f"--voc-sets={args.voc_sets}: must be two, as in trainval,test")
    names = voc.classes(root, sets)
    parts = []
    for subset in sets:
        images, truth = voc.table(root, subset, names)
        _check_positives(names, truth, f"{root}: {subset}")
        parts.append((_rows_of(found, images, f"{args.features}, {root} ({subset})"), truth))
    (train, train_truth), (test, test_truth) = parts
    C = args.C
    if C == "auto":
        C = svm.best_C(found.rows[train], train_truth, _mean_ap, args.seed)
    scores = svm.fit_and_score(found.rows[train], train_truth, found.rows[test], C, args.seed)
    told = []
    for c, name in enumerate(names):
        known = test_truth[:, c] != 0  # what is hard to tell counts neither way
        ap = average_precision(scores[known, c], test_truth[known, c] > 0)
        counts = [int((truth[:, c] > 0).sum()) for truth in (train_truth, test_truth)]
        told.append(Row(name, *counts, {"AP (11 points)": ap.eleven, "AP (area)": ap.area}))
    return told, _means(told, C) | {"protocol": "voc", "sets": list(sets)}


def _mean_ap(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean average precision over the classes, by area."""
    known = truth != 0
    columns = [c for c in range(truth.shape[1]) if (truth[:, c] > 0).any()]
    each = (
        average_precision(scores[known[:, c], c], truth[known[:, c], c] > 0).area for c in columns
    )
    return float(np.mean([*each]))


def _check_positives(names: list[str], truth: np.ndarray, where: str) -> None:
    for sign, word in (1, "positive"), (-1, "negative"):
        lacking = [name for c, name in enumerate(names) if not (sign * truth[:, c] > 0).any()]
        if lacking:
            raise DataError(f"{where}: class {printable(lacking[0])} has no {word} image")


def _rows_of(found: Features, images: list[str], where: str) -> np.ndarray:
    """The rows of images known by their names without folder and suffix. Raises DataError."""
    at: dict[str, int] = {}
    wanted = set(images)
    for i, name in enumerate(found.names):
        stem = Path(name).stem
        if at.setdefault(stem, i) != i and stem in wanted:
            raise DataError(f"{where}: two rows are called {printable(stem)}")
    lacking = [image for image in images if image not in at]
    if lacking:
        raise DataError(
            f"{where}: the file lacks {len(lacking)} of {len(images)} images, "
            + ", ".join(map(printable, lacking[:3]))
            + (", ..." if len(lacking) > 3 else "")
        )
    return np.array([at[image] for image in images])


def _random(args, found: Features) -> tuple[list[Row], dict[str, Any]]:
    _check_labels(args, found)
    counts = np.bincount(found.labels[found.labels >= 0], minlength=len(found.classes))
    few = int(counts.argmin())
    if counts[few] <= args.per_class:
        raise DataError(
            f"{args.features}: class {printable(found.classes[few])} has {counts[few]} images; "
            f"--per-class={args.per_class} leaves none to test with"
        )
    draws = [_draw(args, found, i) for i in range(args.splits or 1)]
    results = [_accuracies(args, found, train, test) for train, test in draws]
    each = np.array([accuracies for accuracies, *_ in results])
    overall = 100 * each.mean(1)
    told = []
    for c, name in enumerate(found.classes):
        test = int((found.labels[draws[0][1]] == c).sum())
        told.append(Row(name, args.per_class, test, {"accuracy": each[:, c].mean()}))
    spread = float(overall.std(ddof=1)) if len(overall) > 1 else None
    return told, {
        "protocol": "random",
        "C": [C for *_, C in results] if args.C == "auto" else args.C,
        "mean": {"accuracy": float(overall.mean())},
        "sd": {"accuracy": spread},
        "splits": overall.tolist(),
    }


def _draw(args, found: Features, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to test with; they depend on seed, number and class only."""
    train, test = [], []
    for c in range(len(found.classes)):
        rows = np.flatnonzero(found.labels == c)
        rows = np.random.default_rng([args.seed, number, c]).permutation(rows)
        train.append(rows[: args.per_class])
        rest = rows[args.per_class :]
        test.append(rest[: args.test_per_class])
    return np.concatenate(train), np.concatenate(test)


def _of_the_file(args, found: Features) -> tuple[list[Row], dict[str, Any]]:
    _check_labels(args, found)
    known = found.labels >= 0
    train, test = (np.flatnonzero(known & (found.splits == side)) for side in (0, 1))
    for rows, word in (train, "training"), (test, "test"):
        counts = np.bincount(found.labels[rows], minlength=len(found.classes))
        lacking = np.flatnonzero(counts == 0)
        if len(lacking):
            raise DataError(
                f"{args.features}: class {printable(found.classes[lacking[0]])} has no {word} "
                "image in it; --per-class=N draws some of all"
            )
    accuracies, total, C = _accuracies(args, found, train, test)
    told = []
    for c, name in enumerate(found.classes):
        counts = [int((found.labels[rows] == c).sum()) for rows in (train, test)]
        told.append(Row(name, *counts, {"accuracy": accuracies[c]}))
    return told, _means(told, C) | {"protocol": "file", "all images": 100 * total}


def _accuracies(
    args, found: Features, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """(accuracy for each class, of all test rows, C) where the highest score decides."""
    truth = np.where(found.labels[train, None] == np.arange(len(found.classes)), 1, -1)
    C = args.C
    if C == "auto":
        C = svm.best_C(found.rows[train], truth, _mean_accuracy, args.seed)
    scores = svm.fit_and_score(found.rows[train], truth, found.rows[test], C, args.seed)
    right = scores.argmax(1) == found.labels[test]
    each = [right[found.labels[test] == c].mean() for c in range(len(found.classes))]
    return np.array(each), float(right.mean()), C


def _mean_accuracy(scores: np.ndarray, truth: np.ndarray) -> float:
    right, mine = scores.argmax(1) == truth.argmax(1), truth.argmax(1)
    return float(np.mean([right[mine == c].mean() for c in np.unique(mine)]))


def _check_labels(args, found: Features) -> None:
    if len(found.classes) == 1:
        only = printable(found.classes[0])
        raise DataError(f"{args.features}: has one class only, {only}; there is nothing to tell")
    if not found.classes or (found.labels < 0).all():
        raise DataError(
            f"{args.features}: has no labels; --voc=VOCdevkit/VOC2007 gives those of VOC, folders "
            "with the names of the classes give others"
        )


def _means(told: list[Row], C: float) -> dict[str, Any]:
    kinds = told[0].figures
    means = {kind: 100 * float(np.mean([row.figures[kind] for row in told])) for kind in kinds}
    return {"C": C, "mean": means}


def _print(told: list[Row], summary: dict[str, Any]) -> None:
    kinds = list(told[0].figures)
    head = "".join(f"{kind:>16}" for kind in kinds)
    print(f"\n{'class':24}{'training':>10}{'test':>8}{head}")
    for row in told:
        figures = "".join(f"{100 * row.figures[kind]:15.2f}%" for kind in kinds)
        print(f"{printable(row.name)[:23]:24}{row.train:10,}{row.test:8,}{figures}")
    means = "".join(f"{summary['mean'][kind]:15.2f}%" for kind in kinds)
    print(f"{'mean of the classes':42}{means}")
    if "all images" in summary:
        print(f"{'all test images':42}{summary['all images']:15.2f}%")
    if summary.get("splits") and len(summary["splits"]) > 1:
        draws = f"standard deviation of {len(summary['splits'])} draws"
        print(f"{draws:42}{summary['sd']['accuracy']:15.2f}%")
    if summary["auto"]:
        chosen = [summary["C"]] if isinstance(summary["C"], float) else summary["C"]
        print(f"{'C, by cross-validation':42}{', '.join(f'{C:g}' for C in chosen):>16}")


def _write_json(args, about: dict, told: list[Row], summary: dict[str, Any]) -> None:
    import sklearn

    whole = {
        "arguments": {k: v for k, v in vars(args).items() if v is not None},
        "versions": {"convnet": __version__, "scikit-learn": sklearn.__version__},
        "features": {k: v for k, v in about.items() if k not in ("net", "classes")},
        **summary,
        "classes": [
            {"name": row.name, "training": row.train, "test": row.test}
            | {kind: 100 * value for kind, value in row.figures.items()}
            for row in told
        ],
    }
    try:
        files.replace(Path(args.json), [json.dumps(whole, indent=1).encode(), b"\n"])
    except OSError as e:
        raise UsageError(f"--json={args.json}: not written, {files.advice(e)}") from None
