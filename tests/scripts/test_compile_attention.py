import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="kernels are compiled by Triton")

SCRIPT = Path(__file__).parents[2] / "scripts" / "compile_attention.py"


def compile_kernels(*options):
    # A process of its own: in this one the kernels are interpreted.
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), "--jobs=1", *options]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "compiled" in run.stdout, run.stderr
    return run


@pytest.mark.parametrize(
    ("arch", "features", "dim"), [("90", "windows", "32"), ("80", "visible", "64"), ("100", "ragged", "80")]
)
def test_kernels_fit_the_gpu(arch, features, dim):
    run = compile_kernels("--arch", arch, "--features", features, "--dim", dim)
    assert run.returncode == 0, run.stdout
    assert "5 compiled, 0 not as they must be" in run.stdout


def test_what_does_not_fit_is_named():
    options = "--kernel", "forward_tile", "--dim", "16", "--features", "plain", "--longest", "16"
    run = compile_kernels(*options, "--shared-bytes", "64")
    assert run.returncode == 1
    assert "bytes of shared memory, 64 are allowed" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["80", "90", "100"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_all_kernels_fit_the_gpu(arch, dtype):
    run = compile_kernels("--arch", arch, "--dtype", dtype)
    assert run.returncode == 0, run.stdout
