"""The kernels' library: found, compiled once, checked, and given up with a reason."""

import os
import re
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from fishnet.errors import UsageError, UserError
from fishnet.host.folder_lock import locked
from fishnet.nn.cpu import compiler as compilers
from fishnet.nn.cpu import library
from fishnet.nn.cpu.compiler import Compiler, Unavailable, find_compiler
from fishnet.nn.cpu.library import choose_variant, find_library, handler_names, library_key, target_flags

VARIANT = "avx2"


@pytest.fixture
def sources(tmp_path) -> Path:
    """Sources of a library that takes no time to compile."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "handlers.cc").write_text('extern "C" int answer() { return 42; }\n')
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of its own, and nothing remembered of other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_OUTCOMES", {})
    monkeypatch.setattr(library, "_REGISTERED", [])
    monkeypatch.delenv(library.VARIABLE, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache" / "fishnet" / "kernels"


@pytest.fixture
def compiler() -> None:
    try:
        find_compiler()
        choose_variant(VARIANT)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.usefixtures("compiler")
def test_compiled_once_and_found_again(sources, own_cache):
    notes = []
    path = find_library(sources, VARIANT, notes.append)
    assert path.parent == own_cache and len(notes) == 1 and notes[0].startswith("compiling the CPU kernels, once")
    assert find_library(sources, VARIANT, notes.append) == path and len(notes) == 1
    (sources / "handlers.cc").write_text('extern "C" int answer() { return 43; }\n')
    assert find_library(sources, VARIANT, notes.append) != path and len(notes) == 2


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:500] + bytes([b[500] ^ 1]) + b[501:], lambda b: b"", lambda b: b"no"]
)
def test_a_damaged_library_is_made_anew(sources, damage):
    notes = []
    path = find_library(sources, VARIANT)
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    again = find_library(sources, VARIANT, notes.append)
    assert again.read_bytes() == whole and len(notes) == 1
    assert [p.suffix for p in again.parent.iterdir() if p.name != ".lock"] == [".so"]


@pytest.mark.usefixtures("compiler")
def test_few_old_libraries_are_kept(sources, own_cache):
    for number in range(library.KEPT + 2):
        (sources / "handlers.cc").write_text(f'extern "C" int answer() {{ return {number}; }}\n')
        newest = find_library(sources, VARIANT)
        os.utime(newest, (number, number))
    assert len(list(own_cache.glob("*.so"))) == library.KEPT and newest.exists()


@pytest.mark.usefixtures("compiler")
def test_a_new_library_stays_where_the_clock_was_put_back(sources, own_cache):
    own_cache.mkdir(parents=True)
    later = time.time() + 1e6
    for number in range(library.KEPT + 1):
        (own_cache / f"old-{number}.so").write_text("")
        os.utime(own_cache / f"old-{number}.so", (later + number, later + number))
    assert find_library(sources, VARIANT).exists()
    assert {path.name for path in own_cache.glob("old-*")} == {f"old-{number}.so" for number in (2, 3, 4)}


@pytest.mark.usefixtures("compiler")
def test_a_kept_library_needs_no_lock(sources, monkeypatch):
    path = find_library(sources, VARIANT)
    monkeypatch.setattr(library, "wait_for_lock", lambda *_: pytest.fail("a lock was taken"))
    assert find_library(sources, VARIANT) == path


@pytest.mark.usefixtures("compiler")
def test_a_lock_that_is_never_freed_is_no_obstacle(sources, own_cache, monkeypatch):
    monkeypatch.setattr(library, "WAIT_SECONDS", 0.3)
    notes = []
    with locked(own_cache, ""):
        assert find_library(sources, VARIANT, notes.append).parent == own_cache
    assert notes[0] == library.WAITING and len(notes) == 2 and notes[1].startswith("compiling")


def test_flags_are_part_of_the_key(sources, monkeypatch):
    gcc, zig = Compiler(("g++",), "1"), Compiler(("zig", "c++"), "1")
    assert target_flags("avx2", gcc) == ("-march=x86-64-v3",) and target_flags("avx2", zig) == ("-mcpu=x86_64_v3",)
    keys = {library_key(sources, name, compiler) for name in library.VARIANTS for compiler in (gcc, zig)}
    haswell = replace(library.VARIANTS["avx2"], flags=("-march=haswell",))
    monkeypatch.setitem(library.VARIANTS, "avx2", haswell)
    assert len(keys) == 6 and library_key(sources, "avx2", gcc) not in keys


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("obstacle", ["a file", "no home", "read-only"])
def test_a_cache_that_cannot_be_written_is_no_obstacle(sources, own_cache, monkeypatch, obstacle):
    if obstacle == "read-only":
        own_cache.mkdir(parents=True)
        own_cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
        if os.access(own_cache, os.W_OK):
            pytest.skip("this user may write to any folder")
    elif obstacle == "a file":
        own_cache.parent.parent.mkdir()
        own_cache.parent.write_text("in the way")
    else:
        monkeypatch.setattr(library, "cache_dir", lambda: None)
    path = find_library(sources, VARIANT)
    assert path.exists() and own_cache.parent not in path.parents


@pytest.mark.usefixtures("compiler")
def test_two_processes_compile_once_and_both_go_on(sources, tmp_path):
    program = (
        "import sys; from pathlib import Path; from fishnet.nn.cpu.library import find_library\n"
        f"print(find_library(Path(sys.argv[1]), {VARIANT!r}, print))"
    )
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\nsleep 1\nexec c++ "$@"\n')
    slow.chmod(stat.S_IRWXU)
    environ = os.environ | {"CXX": str(slow)}
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(sources)], env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0].splitlines() for process in both]
    assert said[0][-1] == said[1][-1]
    assert sum(line.startswith("compiling") for line in [*said[0], *said[1]]) == 1


def make_tool(folder: Path, body: str) -> str:
    """A command of this shell script."""
    path = folder / "tool"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("exit 3", "exit code 3"),
        ('[ "$1" = --version ] || { echo "note: x" >&2; echo "x.cc:1: error: no" >&2; exit 1; }', "x.cc:1: error: no"),
        ('[ "$1" = --version ] || sleep 60', "did not end within"),
    ],
)
def test_a_compiler_that_fails_is_a_reason(sources, own_cache, monkeypatch, tmp_path, body, reason):
    monkeypatch.setenv("CXX", make_tool(tmp_path, body))
    monkeypatch.setattr(library, "SECONDS", 0.5)
    with pytest.raises(Unavailable, match=reason):
        find_library(sources, VARIANT)
    assert not list(own_cache.glob("*.so")) and not list(own_cache.glob(".*.so"))


def test_a_compiler_that_hangs_leaves_no_program_behind(tmp_path):
    alive = tmp_path / "alive"
    tool = make_tool(tmp_path, f"(sleep 1; touch {alive}) & wait")
    with pytest.raises(Unavailable, match="did not end within"):
        compilers.run_compiler(Compiler((tool,), ""), [], 0.2)
    time.sleep(1.5)
    assert not alive.exists()


FULL_DISK = '[ "$1" = --version ] || { echo "ld: x.so: No space left on device" >&2; exit 1; }'


def test_a_full_disk_is_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", make_tool(tmp_path, FULL_DISK))
    monkeypatch.setattr(library, "choose_variant", lambda _: VARIANT)
    assert re.fullmatch(r"the kernels cannot be written to .*: No space left on device", library.missing_kernels())


@pytest.mark.usefixtures("compiler")
def test_a_full_cache_is_no_obstacle(sources, own_cache, monkeypatch, tmp_path):
    full = f'case "$*" in *{own_cache}*) echo "ld: No space left on device" >&2; exit 1;; esac; exec c++ "$@"'
    monkeypatch.setenv("CXX", make_tool(tmp_path, full))
    path = find_library(sources, VARIANT)
    assert path.exists() and own_cache not in path.parents


@pytest.mark.parametrize("fault", ["quote", "sources", "temporary folder"])
def test_whatever_the_machine_lacks_is_a_reason(sources, monkeypatch, tmp_path, fault):
    monkeypatch.setattr(library, "choose_variant", lambda _: VARIANT)
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setattr(library, "cache_dir", lambda: None)
    monkeypatch.setenv("CXX", "g++ '" if fault == "quote" else make_tool(tmp_path, "exit 0"))
    if fault == "sources":
        monkeypatch.setattr(library, "SOURCES", tmp_path / "nowhere")
    elif fault == "temporary folder":
        monkeypatch.setattr(library.tempfile, "tempdir", str(tmp_path / "nowhere"))
    reason = library.missing_kernels()
    assert ("CXX is no command" if fault == "quote" else "nowhere") in reason and "\n" not in reason


def test_without_a_compiler(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="there is no C\\+\\+ compiler here"):
        find_library(sources, VARIANT)
    monkeypatch.setenv("CXX", "nowhere/c++ -v")
    with pytest.raises(Unavailable, match="nowhere/c\\+\\+ cannot be started"):
        find_library(sources, VARIANT)


def test_the_package_ziglang_is_a_compiler(monkeypatch, tmp_path):
    said = []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: name == "ziglang")
    monkeypatch.setattr(
        compilers, "run_compiler", lambda compiler, *_: said.append(compiler.command) or "clang 20\nmore"
    )
    found = find_compiler()
    assert found.is_zig and found.version == "clang 20" and said == [(sys.executable, "-m", "ziglang", "c++")]


def test_variants_by_processor(monkeypatch):
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    for features, expected in (
        (library.VARIANTS["avx512"].features, "avx512"),
        (library.AVX2 | {"avx512f"}, "avx2"),
        (library.AVX2, "avx2"),
    ):
        monkeypatch.setattr(library, "processor_features", lambda features=features: features)
        assert choose_variant("auto") == expected
    with pytest.raises(Unavailable, match="avx512, which this processor"):
        choose_variant("avx512")
    monkeypatch.setattr(library, "processor_features", lambda: frozenset({"sse2"}))
    with pytest.raises(Unavailable, match="neither AVX2 with FMA nor NEON"):
        choose_variant("auto")
    for machine in ("aarch64", "arm64"):
        monkeypatch.setattr(library.platform, "machine", lambda machine=machine: machine)
        assert choose_variant("auto") == "neon"


def test_the_variable_turns_them_off_and_is_checked(monkeypatch):
    monkeypatch.setenv(library.VARIABLE, "off")
    assert library.missing_kernels() == "FISHNET_CPU_KERNELS is off"
    with pytest.raises(UserError, match="cpu_kernels cannot be used: FISHNET_CPU_KERNELS is off"):
        library.require_kernels()
    monkeypatch.setenv(library.VARIABLE, "sse")
    with pytest.raises(UsageError, match="unknown FISHNET_CPU_KERNELS 'sse': valid are auto, off, avx512, avx2, neon"):
        library.missing_kernels()


def test_a_reason_is_found_once(monkeypatch):
    calls = []

    def refuse(wanted):
        calls.append(wanted)
        raise Unavailable("no")

    monkeypatch.setattr(library, "choose_variant", refuse)
    assert [library.missing_kernels(), library.missing_kernels()] == ["no", "no"] and calls == ["auto"]


@pytest.mark.usefixtures("compiler")
def test_what_cannot_be_loaded_is_a_reason(sources, tmp_path):
    path = find_library(sources, VARIANT)
    with pytest.raises(Unavailable, match=r"cannot be loaded: .*convolution"):
        library.register(path, ["convolution"], "fishnet_test_")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(Unavailable, match="cannot be loaded"):
        library.register(tmp_path / "text.so", [], "fishnet_test_")


def test_handlers_are_read_from_the_sources():
    names = handler_names(library.SOURCES)
    assert len(names) == len(set(names)) == 14
    assert {"convolution", "norm_act_conv_gradient", "norm_add_act"} < set(names)


def test_wrong_answers_are_a_reason(kernels, monkeypatch):
    monkeypatch.setattr(library.np, "array_equal", lambda *_: False)
    with pytest.raises(Unavailable, match="wrong results"):
        library.check_answers("fishnet_")


def test_a_traced_function_may_be_the_first_to_need_them(kernels):
    @jax.jit
    def function(x):
        library.check_answers("fishnet_")
        return x

    assert function(1.0) == 1.0


def test_handlers_that_cannot_be_called_are_a_reason(kernels):
    with pytest.raises(Unavailable, match="cannot be called: "):
        library.check_answers("fishnet_nowhere_")


def test_no_other_variant_follows_one_that_failed(kernels, monkeypatch):
    monkeypatch.setattr(library, "choose_variant", lambda wanted: wanted)
    monkeypatch.setattr(library, "find_library", lambda *_: Path("x.so"))
    registered = []
    monkeypatch.setattr(library, "register", lambda *arguments: registered.append(arguments))
    monkeypatch.setattr(library.np, "array_equal", lambda *_: False)
    for wanted, reason in (("avx2", "wrong results"), ("avx512", "avx2 failed in this process: start another")):
        monkeypatch.setenv(library.VARIABLE, wanted)
        assert reason in library.missing_kernels()
    assert len(registered) == 1
