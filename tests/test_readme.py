"""What README.md and docs/ show is true: their blocks run, their errors are the tools' own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tooling import ROOT, call, environment

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    """(name, text) of the fenced blocks in this language on all pages."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.M | re.S)
    return [
        pytest.param(found[1], id=f"{page.name}:{page.read_text()[: found.start()].count(chr(10))}")
        for page in PAGES
        for found in fence.finditer(page.read_text())
    ]


@pytest.mark.parametrize("text", blocks("python"))
def test_python(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(text, "<page>", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("text", blocks("bash"))
def test_bash(text):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text], cwd=ROOT, env={**environment(), "PATH": path},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_blocks():
    assert blocks("python") and blocks("bash")


def test_the_errors_in_the_readme(tmp_path, monkeypatch):
    """A cfg with these mistakes on these lines gets these lines back."""
    shown = re.findall(r"^    (my\.cfg:(\d+): \[(\w+)\] (\w+)=(\S+): .*)$",
                       (ROOT / "README.md").read_text(), re.M)  # fmt: skip
    (_, at, pool, key, value), (_, below, fc, inputs, names) = shown
    lines = ["[data]", "type=data", "dataIdx=0", "imgSize=48"]
    lines += ["[conv5]", "type=conv", "inputs=data", "filters=4", "filterSize=3"]
    lines += ["[pool3x3]", "type=pool", "pool=max", "inputs=conv5", "sizeX=5", "stride=4"]
    lines += [f"[{pool}]", "type=pool", "pool=max", "inputs=conv5", "stride=3"]
    lines += ["#"] * (int(at) - 1 - len(lines)) + [f"{key}={value}"]
    lines += [f"[{fc}]", "type=fc", "outputs=4096"]
    lines += ["#"] * (int(below) - 1 - len(lines)) + [f"{inputs}={names}"]
    (tmp_path / "my.cfg").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    result = call("check", "--layer-def=my.cfg")
    assert result.code == 2
    assert result.err.splitlines() == [line for line, *_ in shown]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    rooms = "layers|layer_configs|tools|convnet|tests|docs|benchmarks"
    for path in re.findall(rf"(?<![\w./])((?:{rooms})/[\w./]*)(?![\w<*])", text):
        assert (ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    """Every option on a command line of a tool is one that the tool has."""
    text = page.read_text().replace("\\\n", " ")
    for tool, line in re.findall(r"tools/(\w+)\.py([^`\n]*)", text):
        command = line.split()[:1] if tool in ("detect", "show") else []  # of several commands
        known = call(tool, *command, "--help").out
        for option in re.findall(r"(?<!\S)--[a-z-]+", line):
            assert re.search(rf"^  .*{option}\b", known, re.M), f"{tool}.py {option}"
