"""Every kernel compiles for every GPU that is supported, both dtypes, without a warning."""

import shutil
import subprocess

import pytest

from convnet.kernel import FLOATS
from tests import cuda

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc on this machine")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiles(arch, tmp_path):
    source = tmp_path / "kernels.cu"
    source.write_text("\n".join(map(cuda.text, FLOATS)))
    done = subprocess.run(
        ["nvcc", "-std=c++17", "-Werror", "all-warnings", f"-arch=sm_{arch}", "-cubin"]
        + ["-o", tmp_path / "kernels.cubin", source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
