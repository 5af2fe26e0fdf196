"""A run as one page of HTML that needs nothing else: no other file, no network, no script."""

from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np

from convnet import __version__, given, machine, runfolder, summary
from convnet.checkpoint import CheckpointError
from convnet.cli import UsageError
from convnet.net import Net
from convnet.providers import DataError
from convnet.results import Table
from convnet.show import confusion, curves, diagram, filters, graph, opened, style
from convnet.show.layout import place
from convnet.show.page import card, cfg, facts, page, picture, section, table
from convnet.show.predictions import Guess, guesses
from convnet.source import Source

EXAMPLES = 12


def report(args) -> Path:
    """tools/show.py report"""
    saved, path, notes = runfolder.find(args.run)
    given.say_notes(notes)
    meta = given.meta_of(saved, path)
    out = opened.target(args, path.parent, "report.html", (".html",))
    rows = _metrics(path.parent)
    net = given.net_of(saved, path, args.device)
    name = path.parent.resolve().name
    parts = [
        _facts(path, meta, net),
        _curves(rows),
        _seen(args, path),
        _filters(net),
        _net(net, meta["minibatch"]),
        _sources(meta),
        _commands(path, meta),
    ]
    error = _last_error(rows)
    text = page(name, error, "\n".join(filter(None, parts)))
    style.save(out, text.encode("utf-8", "replace"))
    return out


def _metrics(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl; none, with a note, where a checkpoint stands alone."""
    try:
        return opened.metrics(opened.folder_of(str(folder)))
    except CheckpointError as e:
        given.say_notes([f"{e}; the page has no curves"])
        return []


def _last_error(rows: list[dict]) -> str:
    """The last test in words."""
    tests = [row["test"] for row in rows if "test" in row]
    errors = {k: v for k, v in tests[-1].items() if k.endswith(".error")} if tests else {}
    return ", ".join(
        f"test error {100 * value:.2f} %"
        + (f" ({name.removesuffix('.error')})" * (len(errors) > 1))
        for name, value in errors.items()
    )


def _facts(path: Path, meta: dict, net: Net) -> str:
    """What was trained, on what, and with what this page was made."""
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


def _curves(rows: list[dict]) -> str:
    if not rows:
        return ""
    drawn = style.inline(*curves.picture([curves.read(rows)], ["run"]), "curves")
    tests = Table(rows)
    body = [[str(row.get(name, "")) for name in tests.columns] for row in tests.rows]
    listed = table(tests.columns, body, fold=f"all tests ({len(body)})") if body else ""
    return section("Costs and errors", picture(drawn, 620) + listed)


def _seen(args, path: Path) -> str:
    """What the net makes of the test images; a line that says why, where they are not there."""
    try:
        _, net, provider = opened.with_data(args)
        with provider:
            errors = guesses(net, provider, EXAMPLES // 2, only_errors=True)
            known = {guess.number for guess in errors}
            others = [g for g in guesses(net, provider, EXAMPLES) if g.number not in known]
            taken = confusion.measure(net, provider)
    except (DataError, UsageError) as e:
        given.say_notes([f"{e}; the page has no test images"])
        return section("Test images", f"<p>None here: {escape(str(e))}</p>")
    drawn = style.inline(*confusion.picture(taken), "confusion")
    return (
        section("What is taken for what", picture(drawn, 520) + _pairs(taken))
        + section(
            "Test images",
            "<p>Five most probable classes; orange is what the image shows.</p>"
            + _cards(others[: EXAMPLES // 2], net.classes),
        )
        + (section("Errors", _cards(errors, net.classes)) if errors else "")
    )


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
    try:
        drawn = style.inline(*filters.picture(net, filters.first(net)), "filters")
    except UsageError:  # no layer that looks at the images
        return ""
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


def _commands(path: Path, meta: dict) -> str:
    """What makes such a run, goes on with it, tests it."""
    source, folder = meta["source"], path.parent
    train = f"python tools/train.py --layer-def={source['name']}"
    if meta["data"]["provider"] != "digits":
        train += f" --data-path={meta['data']['path']}"
    train += f" --epochs={meta['epochs']} --minibatch={meta['minibatch']} --seed={meta['seed']}"
    train += "".join(f" '--set={override}'" for override in source["overrides"])
    lines = [
        train,
        f"python tools/train.py --resume={folder}",
        f"python tools/test.py {folder} --multiview",
    ]
    return section("Commands", f"<pre>{escape(chr(10).join(lines))}</pre>")
