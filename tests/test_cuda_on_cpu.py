"""The CUDA body of every kernel does what its Numba body does, on every example, by g++."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convnet.kernel import Kernel
from tests import contract, cuda
from tests.test_contract import CASES

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no g++ on this machine")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return cuda.build(tmp_path_factory.mktemp("cuda"))


@pytest.mark.parametrize("name,line", CASES)
def test_cuda_equals_numba(name, line, library, monkeypatch):
    case = contract.build(name, line)
    numba = contract.everything(case, np.float64)
    one, many = cuda.Shim(library), cuda.Shim(library, blocks=3, threads=2)
    monkeypatch.setattr(Kernel, "launch", lambda *a: one.launch(*a))
    got = contract.everything(case, np.float64)
    assert set(got) == set(numba)
    for of, wanted in numba.items():
        if "pool=max" in line:  # chooses, computes nothing
            np.testing.assert_array_equal(got[of], wanted)
        gap = abs(got[of] - wanted).max() / abs(wanted).max()
        assert gap <= 1e-12, f"{of}: CUDA is {gap:.1e} from Numba"
    monkeypatch.setattr(Kernel, "launch", lambda *a: many.launch(*a))
    for of, wanted in contract.everything(case, np.float64).items():
        np.testing.assert_array_equal(wanted, got[of], f"{of} depends on the order of the threads")
    for of, wanted in contract.everything(case, np.float32).items():
        gap = abs(numba[of] - wanted).max() / abs(numba[of]).max()
        assert gap <= 1e-4, f"{of}: float is {gap:.1e} from double"


def test_more_than_an_int_can_count():
    """A pool reads more numbers than it writes: all arrays are looked at, not the output alone."""
    many = np.broadcast_to(np.float32(0), (2**31,))
    k = next(k for k in cuda.kernels().values() if k.types[1:3] == ["T*", "T*"])
    with pytest.raises(ValueError, match=r"2147483648 elements, at most .* use smaller batches"):
        k.marshal(many.dtype, 5, (many,))


CHECK = """
import sys
from convnet.kernel import Kernel
from tests import cuda, contract, test_cuda_on_cpu as t
shim = cuda.Shim(sys.argv[1])
Kernel.launch = lambda *a: shim.launch(*a)
for name, line in t.CASES:
    print(name, line, flush=True)
    contract.everything(contract.build(name, line), "float32")
ours = {name for name, k in cuda.kernels().items() if k.body.__module__.startswith("layers.")}
print("missing", sorted(ours - shim.launched))
"""


def test_no_access_outside_arrays(tmp_path):
    """The same under AddressSanitizer and UBSan, in a process of its own. And the examples of the
    layers reach every kernel."""
    where = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True)
    asan = where.stdout.strip()
    if not Path(asan).is_absolute():
        pytest.skip("g++ has no libasan")
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    library = cuda.build(tmp_path, *flags)
    env = {**os.environ, "LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, library], env=env, capture_output=True, text=True
    )
    tail = done.stdout[-500:] + done.stderr[-3000:]
    assert done.returncode == 0, tail
    assert done.stdout.endswith("missing []\n"), "no example reaches these kernels: " + tail
