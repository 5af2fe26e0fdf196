"""A run as one page of HTML that needs nothing else: no other file, no network, no script."""

from collections.abc import Iterator
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np

from convnet import __version__, given, machine, scores, summary
from convnet.checkpoint import CheckpointError
from convnet.cli import UsageError, command
from convnet.given import Trained
from convnet.net import Net
from convnet.providers import DataError, Provider
from convnet.results import Table
from convnet.scores import Predictions
from convnet.show import (
    activations,
    bins,
    confusion,
    curves,
    diagram,
    filters,
    graph,
    opened,
    style,
)
from convnet.show.curves import Curve
from convnet.show.layout import place
from convnet.show.page import card, cfg, facts, page, picture, section, table
from convnet.show.predictions import Guess, guesses
from convnet.source import Source
from convnet.tiles import first_layer

EXAMPLES = 6  # images of a kind
BINS_OF = 500  # test images that are searched for windows


def report(args) -> Path:
    """tools/show.py report"""
    run = given.opened(args.run, args.device)
    folder = run.path.parent
    out = opened.target(args, folder, "report.html", (".html",))
    lines, tests, table = _metrics(folder)
    seen = _seen(args, run)
    parts = [
        _facts(run),
        _curves(lines, table),
        seen,
        _filters(run.net),
        _net(run.net, run.meta["minibatch"]),
        _sources(run.meta),
        _commands(run),
    ]
    text = page(folder.resolve().name, _error(tests, run.meta), "\n".join(filter(None, parts)))
    style.save(out, text.encode("utf-8", "replace"))
    return out


def _metrics(folder: Path) -> tuple[dict[str, Curve], list[dict], Table]:
    """What metrics.jsonl tells: the curves, the rows of the tests, the table of results.csv.

    Nothing, with a note, where a checkpoint stands alone or the file is damaged.
    """
    tests, told = [], Table()

    def rows() -> Iterator[dict]:
        for row in opened.metrics(folder):
            told.add(row)
            tests.extend([row] if "test" in row else [])
            yield row

    try:
        return curves.read(rows()), tests, told
    except CheckpointError as e:
        given.say_notes([f"{e}; the page has no curves"])
        return {}, [], Table()


def _error(tests: list[dict], meta: dict) -> str:
    """In words what the test gave for the weights of this checkpoint, if there was one."""
    own = [row["test"] for row in tests if row["step"] == meta["step"]]
    errors = {k: v for k, v in own[-1].items() if k.endswith(".error")} if own else {}
    return ", ".join(
        f"test error {100 * value:.2f} %"
        + (f" ({name.removesuffix('.error')})" * (len(errors) > 1))
        for name, value in errors.items()
    )


def _facts(run: Trained) -> str:
    """What was trained, on what, and with what this page was made."""
    meta, path, net = run.meta, run.path, run.net
    data, here = meta["data"], machine.describe()
    when = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    done = f"{meta['epoch']} of {meta['epochs']}, {meta['step']:,} batches of {meta['minibatch']}"
    return section(
        "This run",
        facts(
            {
                "net": meta["source"]["name"],
                "size": f"{summary.short(sum(w.size for w in net.own_weights().values()))} weights",
                "data": f"{data['path'] or ''} ({data['provider']})",
                "images": f"{data['train']:,} to train on, {data['test']:,} to test on",
                "classes": given.some(net.classes),
                "epochs": done,
                "seed": str(meta["seed"]),
                "checkpoint": f"{path.name}, {when:%Y-%m-%d %H:%M %Z}",
                "page made on": f"{here['cpu']}, {given.count(here['cores'], 'core')}, "
                f"{here['system']}",
                "with": f"convnet {__version__} {here['commit']}, Python {here['python']}, "
                f"NumPy {np.__version__}",
            }
        ),
    )


def _curves(lines: dict[str, Curve], tests: Table) -> str:
    if not lines:
        return ""
    drawn = style.inline(*curves.picture([lines], ["run"]), "curves")
    body = [[str(row.get(name, "")) for name in tests.columns] for row in tests.rows]
    listed = table(tests.columns, body, fold=f"all tests ({len(body)})") if body else ""
    return section("Costs and errors", picture(drawn, 620) + listed)


def _seen(args, run: Trained) -> str:
    """What the net makes of the test images; a line that says why, where they are not there."""
    try:
        with opened.data(args, run) as provider:
            predicted = scores.predict(run.net, provider, None, confusion.BATCH)
            return (
                _confused(run.net, provider, predicted)
                + _images(run.net, provider, predicted)
                + _learnt(run.net, provider, predicted)
            )
    except (DataError, UsageError) as e:
        given.say_notes([f"{e}; the page has no test images"])
        return section("Test images", f"<p>None here: {escape(str(e))}</p>")


def _confused(net: Net, provider: Provider, predicted: Predictions) -> str:
    """The matrix, or the worst pairs; nothing where no labels are known."""
    if (provider.test.labels[predicted.indices] < 0).all():
        return ""
    taken = confusion.of(predicted, provider, net.classes)
    drawn = style.inline(*confusion.picture(taken), "confusion")
    return section("What is taken for what", picture(drawn, 520) + _pairs(taken))


def _images(net: Net, provider: Provider, predicted: Predictions) -> str:
    """Some of all, and some of the errors."""
    labels = provider.test.labels[predicted.indices]
    wrong = predicted.indices[(labels >= 0) & (predicted.probs.argmax(1) != labels)]
    rng = np.random.default_rng(0)
    some, errors = (
        guesses(net, provider, np.sort(rng.permutation(of)[:EXAMPLES]))
        for of in (predicted.indices, wrong)
    )
    among = f"<p>{len(errors)} of {len(wrong):,}, drawn at random.</p>"
    return section(
        "Test images",
        f"<p>{len(some)} of {len(predicted.indices):,}, drawn at random, and the five most "
        "probable classes; orange is what the image shows.</p>" + _cards(some, net.classes),
    ) + (section("Errors", among + _cards(errors, net.classes)) if errors else "")


def _learnt(net: Net, provider: Provider, predicted: Predictions) -> str:
    """The maps of a test image, and the windows that the bins of the pyramid answer most."""
    try:
        layer = opened.last_map(net)
    except UsageError:  # a net of fully connected layers
        return ""
    made = ""
    for guess in guesses(net, provider, predicted.indices[:1]):
        drawn = style.inline(*activations.made_of(net, guess.view, layer, guess.name), "maps")
        made = section(f"What {style.short(layer, 40)} makes of an image", picture(drawn, 620))
    try:
        drawn = bins.made_of(net, provider, bins.Wanted(layer, images=BINS_OF))
    except (DataError, UsageError):  # a map whose cells do not see windows of one size; bad images
        return made
    of = (
        f"{BINS_OF} test images, drawn at random," if provider.test.size > BINS_OF else "the images"
    )
    words = (
        "<p>A row is a bin of the pyramid and a filter that answers there more than elsewhere, "
        f"with the windows of {of} that it answers most.</p>"
    )
    drawn = picture(style.inline(*drawn, "bins"), 620)
    return made + section("What the bins look for", words + drawn)


def _pairs(taken: confusion.Confusion) -> str:
    """The most frequent confusions as text."""
    rows = [
        [taken.classes[i], taken.classes[j], f"{taken.counts[i, j]} of {taken.counts[i].sum()}"]
        for i, j in taken.pairs(10)
    ]
    return table(["shows", "taken for", "images"], rows, fold="most frequent") if rows else ""


def _cards(found: list[Guess], classes: list[str]) -> str:
    cards = []
    for guess in found:
        bars = [(classes[c], float(guess.probs[c]), int(c) == guess.label) for c in guess.top]
        truth = classes[guess.label] if guess.label >= 0 else "?"
        cards.append(card(guess.view, truth, guess.name, bars))
    return f'<div class="cards">{"".join(cards)}</div>'


def _filters(net: Net) -> str:
    name = first_layer(net)
    if name is None:
        return ""
    drawn = style.inline(*filters.picture(net, name), "filters")
    return section("Filters of the first layer", picture(drawn, 300))


def _net(net: Net, minibatch: int) -> str:
    """The table of layers, and the graph."""
    head, *body = summary.rows(net.graph, minibatch)
    boxes, reads = graph.boxes_of(net.graph)
    placed = place(reads)
    drawn = picture(diagram.svg(boxes, placed, inline=True), round(min(placed.size[0], 900)))
    fold = f"<details><summary>as a graph</summary>{drawn}</details>"
    return section("The net", table(head, body, numbers=range(4, 7)) + fold)


def _sources(meta: dict) -> str:
    """The cfgs as the run has them."""
    parts = []
    for source in (Source.from_dict(d) for d in (meta["source"], *meta.get("others", []))):
        parts.append(cfg(source.name, source.text))
        if source.params_text:
            parts.append(cfg(source.params_name, source.params_text))
        if source.overrides:
            parts.append(cfg("--set", "\n".join(source.overrides)))
    return section("Layer definition", "".join(parts))


def _commands(run: Trained) -> str:
    """What makes such a run, goes on with it, tests it."""
    folder = run.path.parent
    lines = [
        command("test", folder, "--multiview", python="python"),
        command("show", "report", folder, python="python"),
    ]
    if run.meta["data"]["provider"]:  # else it was imported
        lines = [
            command("train", *given.words_of(run.meta), python="python"),
            command("train", f"--resume={folder}", python="python"),
            *lines,
        ]
    changes = "".join(f"<p>It went on {escape(line)}.</p>" for line in given.changes_of(run.meta))
    return section("Commands", f"<pre>{escape(chr(10).join(lines))}</pre>{changes}")
