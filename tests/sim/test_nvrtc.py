"""Kernels are compiled once, never stale, and what is wrong with them is told with file and line."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import BuildError, DeviceError
from core.kernels import nvrtc, nvrtc_library, sources
from core.kernels.nvrtc import Compiled, Kernel, compile_all, compile_cubin, compile_ptx

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there is no NVRTC for macOS")

DOUBLE = """#include "half.cuh"
extern "C" __global__ void twice(elem* y, const elem* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = elem(HALF(4) * float(x[i]));
}
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A .cu with a header beside it, an empty cache, and a count of the compilations."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nvrtc, "_HELD", {})
    (tmp_path / "half.cuh").write_text("#define HALF(x) ((x) / 2)\n")
    path = tmp_path / "twice.cu"
    path.write_text(DOUBLE)
    runs = []
    real = nvrtc._run_nvrtc
    monkeypatch.setattr(nvrtc, "_run_nvrtc", lambda unit, kernel: runs.append(unit.arch) or real(unit, kernel))
    return path, runs, monkeypatch


def twice(path, **defines):
    return Kernel(path, "twice", tuple(sorted(defines.items())), "op.variant")


def forget(monkeypatch):
    """As if another process asked."""
    monkeypatch.setattr(nvrtc, "_HELD", {})


def test_ptx_and_cubin_come_without_a_gpu(source):
    path, _, _ = source
    ptx = compile_ptx(twice(path))
    assert ptx.names == ["twice"] and ".entry twice" in ptx.ptx and f'"{path.as_posix()}"' in ptx.ptx
    cubin = compile_cubin(twice(path), "sm_80")
    assert cubin.cubin[:4] == b"\x7fELF" and cubin.names == ["twice"]
    assert 0 < cubin.of(twice(path)).registers < 64 and cubin.of(twice(path)).spills == 0


def test_an_entry_is_used_again_by_this_process_and_by_the_next(source):
    path, runs, monkeypatch = source
    first = compile_cubin(twice(path))
    assert compile_cubin(twice(path)) is first
    forget(monkeypatch)
    assert compile_cubin(twice(path)) == first
    assert len(runs) == 1


def copied(path, text=DOUBLE):
    """The source and its header in another folder, under another name."""
    folder = path.parent / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(path.with_name("half.cuh"), folder)
    (folder / "again.cu").write_text(text)
    return folder / "again.cu"


@pytest.mark.parametrize("arch", ["compute_80", "sm_80"])
def test_a_copy_in_another_folder_is_not_compiled_again_and_its_lines_name_the_copy(source, arch):
    path, runs, monkeypatch = source
    first = compile_all([(twice(path), arch)])[0]
    for _ in "process", "next":
        again = compile_all([(twice(copied(path)), arch)])[0]
        assert compile_all([(twice(path), arch)])[0] == first
        forget(monkeypatch)
    assert runs == [arch] and again.resources == first.resources
    if arch == "compute_80":
        assert str(path) in first.ptx and "again.cu" not in first.ptx
        assert f'"{copied(path)}"' in again.ptx and str(path) not in again.ptx and "copy/half.cuh" not in first.ptx
    copied(path).with_name("half.cuh").write_text("#define HALF(x) ((x) / 4)\n")
    compile_all([(twice(path.parent / "copy" / "again.cu"), arch)])
    assert runs == [arch, arch]


def test_a_kernel_that_names_its_own_file_is_compiled_for_each(source):
    path, runs, _ = source
    text = DOUBLE.replace("    if", "    if (n < 0) y[0] = elem(__FILE__[0]);\n    if")
    path.write_text(text)
    compile_ptx(twice(path))
    compile_ptx(twice(copied(path, text)))
    assert len(runs) == 2


def change_source(path, monkeypatch):
    path.write_text(DOUBLE.replace("HALF(4)", "HALF(6)"))
    return twice(path), "sm_90a"


def change_header(path, monkeypatch):
    path.with_name("half.cuh").write_text("#define HALF(x) ((x) / 4)\n")
    return twice(path), "sm_90a"


def change_prelude(path, monkeypatch):
    changed = path.with_name("prelude.cuh")
    changed.write_text(nvrtc.prelude_file().read_text() + "// changed\n")
    monkeypatch.setattr(nvrtc, "prelude_file", lambda: changed)
    return twice(path), "sm_90a"


def change_define(path, monkeypatch):
    return twice(path, ELEM="bf16"), "sm_90a"


def change_option(path, monkeypatch):
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--use_fast_math"))
    return twice(path), "sm_90a"


def change_architecture(path, monkeypatch):
    return twice(path), "sm_80"


def change_compiler(path, monkeypatch):
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: "13.99")
    return twice(path), "sm_90a"


@pytest.mark.parametrize(
    "change",
    [change_source, change_header, change_prelude, change_define, change_option, change_architecture, change_compiler],
)
def test_nothing_stale_is_used(source, change):
    path, runs, monkeypatch = source
    before = compile_cubin(twice(path))
    kernel, arch = change(path, monkeypatch)
    after = compile_cubin(kernel, arch)
    assert len(runs) == 2
    if change in (change_source, change_header, change_define, change_architecture):
        assert after.code != before.code


@pytest.mark.parametrize("seconds", [sources.SETTLED, -1.0])
def test_a_source_is_read_again_after_each_change(tmp_path, monkeypatch, seconds):
    """Of the same size and with the same time of change too, just after a write and long after one."""
    monkeypatch.setattr(sources, "SETTLED", seconds)
    path = tmp_path / "twice.cu"
    for text in ("one", "two", "six"):
        path.write_text(text)
        os.utime(path, ns=(10**18, 10**18))
        assert [sources.read_source(path) for _ in range(2)] == [text] * 2
        time.sleep(0.02)


def test_a_source_that_stays_as_it_is_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SETTLED", -1.0)
    path, opened = tmp_path / "twice.cu", []
    path.write_text(DOUBLE)
    real = sources.read_utf8
    monkeypatch.setattr(sources, "read_utf8", lambda kind, path: opened.append(path) or real(kind, path))
    assert [sources.read_source(path) for _ in range(3)] == [DOUBLE] * 3
    assert opened == [str(path)]


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_entry_is_compiled_again(source, damage):
    path, runs, monkeypatch = source
    first = compile_cubin(twice(path))
    (entry,) = (path.parent / "cache" / "kernels").glob("*.bin")
    entry.write_bytes(damage(entry.read_bytes()))
    forget(monkeypatch)
    assert compile_cubin(twice(path)) == first and len(runs) == 2
    forget(monkeypatch)
    assert compile_cubin(twice(path)) == first and len(runs) == 2, "the entry was mended"


def test_a_cache_that_cannot_be_written_only_costs_time(source):
    path, runs, monkeypatch = source
    (path.parent / "file").write_text("")
    monkeypatch.setenv("CORELM_CACHE", str(path.parent / "file" / "cache"))
    for _ in range(2):
        forget(monkeypatch)
        assert compile_ptx(twice(path)).names == ["twice"]
    assert len(runs) == 2


def test_two_processes_may_compile_the_same_at_once(source):
    path, _, _ = source
    code = f"""
from pathlib import Path
from core.kernels.nvrtc import Kernel, compile_cubin
print(len(compile_cubin(Kernel(Path({str(path)!r}), "twice")).cubin))
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    sizes = [int(p.communicate()[0]) for p in running]
    assert sizes[0] == sizes[1] == len(compile_cubin(twice(path)).cubin)
    left = [p.suffix for p in (path.parent / "cache" / "kernels").iterdir()]
    assert left == [".bin"]


def test_many_are_compiled_at_once_each_of_them_once(source):
    path, runs, _ = source
    jobs = [(twice(path, ELEM=e), arch) for arch in ("sm_80", "sm_90a") for e in ("float", "bf16", "float")]
    done = compile_all(jobs)
    assert sorted(runs) == ["sm_80", "sm_80", "sm_90a", "sm_90a"]
    assert [d.arch for d in done] == [arch for _, arch in jobs]
    assert done[0] is done[2] and done[0].code != done[1].code


def test_an_error_names_the_authors_file_and_line(source):
    path, _, _ = source
    path.write_text(DOUBLE.replace("y[i] =", "z[i] ="))
    with pytest.raises(BuildError) as error:
        compile_ptx(twice(path))
    text = str(error.value)
    assert f"{path.as_posix()}(4): error" in text and "op.variant" in text and '"z"' in text


def test_an_error_in_a_header_names_the_header(source):
    path, _, _ = source
    path.with_name("half.cuh").write_text("\n\nint broken(;\n")
    with pytest.raises(BuildError, match=r"half\.cuh\(3\): error"):
        compile_ptx(twice(path))


def test_a_kernel_that_is_not_there_gets_the_nearest(source):
    path, _, _ = source
    with pytest.raises(BuildError, match='did you mean "twice"'):
        compile_cubin(twice(path)).of(Kernel(path, "twoce", origin="op.variant"))


def test_architectures_that_nobody_can_compile_for_are_refused(source):
    path, _, _ = source
    with pytest.raises(BuildError, match="does not know sm_99"):
        compile_cubin(twice(path), "sm_99")
    with pytest.raises(BuildError, match="compute_90a"):
        compile_cubin(twice(path), "compute_90a")


@pytest.mark.parametrize(
    "line",
    [
        "ptxas warning : (C7508) Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum register",
        "ptxas warning : (C7517) A wgmma wait was inserted",
        "ptxas warning : Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...",
    ],
)
def test_the_warnings_that_mean_a_wrong_kernel_are_faults(line):
    assert Compiled("sm_90a", b"", line).faults == [line]
    assert Compiled("sm_90a", b"", "k.cu(3): warning #177-D: variable was declared but never used").faults == []


def test_spills_and_shared_memory_are_read_from_the_log(source):
    path, _, _ = source
    path.write_text("""extern "C" __global__ void __launch_bounds__(1024, 2) heavy(float* x) {
        __shared__ float s[64];
        float a[80];
        for (int i = 0; i < 80; i++) a[i] = x[i * 32 + threadIdx.x];
        for (int k = 0; k < 9; k++)
            for (int i = 0; i < 80; i++) a[i] = a[i] * a[(i * 7 + 1) % 80] + a[(i + 3) % 80];
        s[threadIdx.x % 64] = a[0];
        __syncthreads();
        for (int i = 0; i < 80; i++) x[i * 32 + threadIdx.x] = a[i] + s[i % 64];
    }""")
    found = compile_cubin(Kernel(path, "heavy"), "sm_80").of(Kernel(path, "heavy"))
    assert found.registers == 32 and found.shared == 256 and found.spills > 0


@pytest.mark.skipif(sys.platform != "linux", reason="a library of this platform is built in a line")
def test_bindings_of_cuda_12_take_the_compiler_of_12_though_13_lies_beside_it(tmp_path, monkeypatch):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    wheel, record = tmp_path / "nvidia_cuda_nvrtc_cu12-12.9.86.dist-info", []
    wheel.mkdir()
    for name in ("libnvrtc.alt.so.12", "libnvrtc-builtins.so.12.9", "libnvrtc.so.12"):
        path = tmp_path / "nvidia" / "cuda_nvrtc" / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-shared", "-x", "c", "-", "-o", str(path)]
        subprocess.run(command, input=b"int twelve(void) { return 12; }", check=True)
        record.append(f"nvidia/cuda_nvrtc/lib/{name},,\n")
    (wheel / "RECORD").write_text("".join(record))
    (wheel / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-cuda-nvrtc-cu12\nVersion: 12.9.86\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert nvrtc_library.load_library("12") == path and path.name == "libnvrtc.so.12"
    assert ctypes.CDLL(None).twelve() == 12
    assert nvrtc_library.load_library("13") is None


def test_no_compiler_is_one_line_and_exit_4(monkeypatch):
    def absent(name):
        raise RuntimeError("libnvrtc is not here\nand a traceback of it")

    monkeypatch.setattr(nvrtc_library, "import_module", absent)
    with pytest.raises(DeviceError) as error:
        nvrtc_library.load_nvrtc.__wrapped__()
    assert error.value.exit_code == 4 and "\n" not in error.value.message and "pip install" in error.value.hint


def test_a_lambda_with_auto_parameters_is_a_function_of_the_device():
    text = 'extern "C" __global__ void k(float* x) { [](auto* y) { *y = 1.0f; }(x); }'
    assert compile_ptx(Kernel(Path("lambda.cu"), "k", text=text)).names == ["k"]
