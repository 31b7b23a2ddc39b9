"""The kernels alone, in a C++ program: against plain loops, under sanitizers, with the same bits on all processors."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fishnet.nn.cpu.library import SOURCES, processor_features

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parent / "bounds.cc"
FEATURES = {"x86-64-v3": "avx2", "x86-64-v4": "avx512f"}


def run(architecture: str, folder: Path, *flags: str) -> str:
    """What bounds.cc prints, built with these flags; the test fails if it does, and is skipped on other processors."""
    if FEATURES[architecture] not in processor_features():
        pytest.skip(f"this processor has no {FEATURES[architecture]}")
    if shutil.which("g++") is None:
        pytest.skip("the sanitizers need g++")
    program = folder / architecture
    options = ["-std=c++17", "-ffp-contract=off", "-pthread", f"-march={architecture}", f"-I{SOURCES}"]
    subprocess.run(["g++", *options, *flags, "-o", program, PROGRAM], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("architecture", FEATURES)
def test_nothing_is_read_or_written_out_of_bounds(architecture, tmp_path):
    # Blocks on the widest vectors alone: they take a minute to compile, and longer with -g.
    wide = FEATURES["x86-64-v4"] in processor_features()
    blocks = ["-DBLOCKS"] if architecture == ("x86-64-v4" if wide else "x86-64-v3") else ["-g"]
    run(architecture, tmp_path, "-O1", *blocks, "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


@pytest.mark.parametrize("architecture", FEATURES)
def test_threads_share_nothing(architecture, tmp_path):
    run(architecture, tmp_path, "-O1", "-g", "-fsanitize=thread")


def test_avx2_and_avx512_give_the_same_bits(tmp_path):
    avx2, avx512 = (run(architecture, tmp_path, "-O3") for architecture in FEATURES)
    assert avx2 == avx512 and "hash" in avx2
