"""A tiny SPP net, and the tools called in this process: quicker by two seconds than a new one."""

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from convnet import cli

ROOT = Path(__file__).parent.parent
TINY = """
[data]
type=data
dataIdx=0
imgSize=16
scale=0.015625

[labels]
type=data
dataIdx=1

[conv1]
type=conv
inputs=data
filters=6
filterSize=3
padding=1
neuron=relu

[spp]
type=spp
inputs=conv1
levels=3,2,1
pool=max

[fc1]
type=fc
inputs=spp
outputs=20
neuron=relu

[drop]
type=dropout
inputs=fc1
keep=0.8

[fc2]
type=fc
inputs=drop
outputs=classes

[probs]
type=softmax
inputs=fc2

[logprob]
type=cost.logreg
inputs=labels,probs
"""
RATES = """
[DEFAULT]
epsW=linear[base=0.01;tgtFactor=10]
epsB=0.01
momW=0.9
momB=0.8
wc=0.001
"""
TIMES = ("seconds", "images_per_s")


class Result(NamedTuple):
    """How a tool ended."""

    code: int
    out: str
    err: str


def call(tool: str, *argv, room: str = "tools") -> Result:
    """Run tools/<tool>.py in this process, or a script of benchmarks/."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"{tool}.py", *map(str, argv)]),
        mock.patch.object(sys, "path", [*sys.path, str(ROOT / room)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.run(importlib.import_module(f"{room}.{tool}").main)
        except SystemExit as e:
            return Result(e.code, out.getvalue(), err.getvalue())


def commands(page: str | Path, script: str = "") -> list[list[str]]:
    """The words of each command that a page shows, of all or of those that run such a script:
    indented, in a fence or in backticks. Blocks of bash are run by test_readme.py."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    text = re.sub(r"^```bash\n.*?^```$", "", text, flags=re.M | re.S)
    text = re.sub(r"^```\w*\n(.*?)^```$", lambda block: re.sub("^", "    ", block[1], flags=re.M),
                  text, flags=re.M | re.S)  # fmt: skip
    named = r"(?:\w+=\S+ )*(?:\S+/)?(?:python3?|pip|pytest|make|tensorboard|git|bash|sh|curl) "
    lines = re.findall(rf"^ {{4,}}(?:\$ (.*)|({named}.*))|`({named}[^`\n]*)`", text, re.M)
    found = [shlex.split("".join(line), comments=True) for line in lines]
    return [words for words in found if not script or words[1].startswith(script)]


def command(tool: str, *argv) -> list[str]:
    """The command line of a tool for a process of its own, in which warnings are errors."""
    return [sys.executable, "-W", "error", str(ROOT / "tools" / f"{tool}.py"), *map(str, argv)]


def environment() -> dict[str, str]:
    """This one, with the folder in which convnet is."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def spawn(tool: str, *argv, **more) -> Result:
    """Run tools/<tool>.py in a process of its own."""
    done = subprocess.run(
        command(tool, *argv), env=environment(), capture_output=True, text=True, timeout=120, **more
    )
    return Result(done.returncode, done.stdout, done.stderr)


def later(folder: Path) -> None:
    """Wait until what is written there is younger than what is there: file systems count in steps,
    some of milliseconds, some of two seconds."""
    probe, times = folder / ".probe", set()
    while len(times) < 2:
        probe.write_bytes(b"")
        times.add(probe.stat().st_mtime_ns)
        time.sleep(0.0005)
    probe.unlink()


def tiny(folder: Path, text: str = TINY) -> Path:
    """tiny.cfg and tiny-params.cfg in a folder."""
    (folder / "tiny-params.cfg").write_text(RATES)
    (folder / "tiny.cfg").write_text(text)
    return folder / "tiny.cfg"


def metrics(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl without the times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def photos(folder: Path, classes=("ant", "bee", "cat"), each=9, side=70, suffixes=(".jpg", ".png")):
    """Images by class, each class of a colour of its own, sides from `side` on, JPEG and PNG."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            h, w = side + rng.integers(0, 20, 2)
            pixels = rng.integers(0, 90, (h, w, 3))
            pixels[..., c % 3] += 150
            path = folder / name / f"{i}{suffixes[i % len(suffixes)]}"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder
