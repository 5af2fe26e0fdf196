"""Those commands of the pages that need PyTorch, as tests/test_docs.py runs the others."""

import pytest

pytest.importorskip("torch", reason="needs PyTorch: make peer")

from convnet import bench
from convnet.engine import engine_class
from tests.test_docs import PAGES, needs_pytorch, place, run, runs, todo

__all__ = ["place", "run", "runs"]
COMMANDS = [(page, words) for page in PAGES for words in todo(page) if needs_pytorch(words)]


@pytest.mark.parametrize(
    "page,words", COMMANDS, ids=[f"{page}: {' '.join(words[1:])}" for page, words in COMMANDS]
)
def test_commands_run(page, words, run, monkeypatch):
    """With the first setting of PyTorch, not the fastest."""
    first = lambda name, job: (engine_class(name).settings(job.device)[0], {})  # noqa: E731
    monkeypatch.setattr(bench, "best", first)
    run(words)
