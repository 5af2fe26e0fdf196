"""Who may import whom. A layer never sees the net; the engine finds layers by name only."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ABOVE = ("convnet.show", "convnet.detect")  # what the engine knows nothing of
OURS = ("convnet", "layers", "tools", "tests", "benchmarks")


def imports(path: Path):
    """(line, dotted name) of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written out in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def may(room: str, name: str) -> bool:
    """Whether a file of this room may import the name."""
    if name.split(".")[0] not in OURS:
        return True
    return {
        "layers": f"{name}.".startswith(("convnet.layer.", "convnet.kernel.", "layers._")),
        "convnet": name.startswith("convnet") and not name.startswith(ABOVE),
        "convnet/show": name.startswith("convnet") and not name.startswith("convnet.detect"),
        "convnet/detect": name.startswith("convnet"),
        "tools": name.startswith("convnet"),
    }[room]


def files():
    """(room, path) of every file that the laws are about."""
    for room in ("convnet", "layers", "tools"):
        for path in sorted((ROOT / room).rglob("*.py")):
            part = ".".join(path.relative_to(ROOT).parts[:2])
            yield part.replace(".", "/") if part in ABOVE else room, path


def test_arrows():
    wrong = [
        f"{path}:{line}: may not import {name}"
        for room, path in files()
        for line, name in imports(path)
        if not may(room, name)
    ]
    wrong += [
        f"{path}:{line}: only convnet/device.py imports cupy"
        for _, path in files()
        for line, name in imports(path)
        if name.split(".")[0] == "cupy" and path != ROOT / "convnet" / "device.py"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_arrows_can_be_broken(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from convnet import net\n    import layers.fc\n")
    assert [may("layers", name) for _, name in imports(bad)] == [False, False]
    bad.write_text("from layers import _bins, fc\nfrom convnet.layer import key\nimport numpy\n")
    assert [may("layers", name) for _, name in imports(bad)] == [True, False, True, True]
    bad.write_text("import tools.train\nfrom layers.fc import Fc\nimport convnet.net\n")
    assert [may("convnet", name) for _, name in imports(bad)] == [False, False, True]
