"""`core judge`: the files that a submission may include, and those that a message quotes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from judged import RIGHT, SCALE, failure, heard, kernel

from core.judge.questions import hear
from core.judge.submission import Submission, included
from core.kernels.nvrtc import Kernel, compile_ptx


@pytest.mark.parametrize(
    "text",
    [
        '#include "/etc/passwd"',
        "#include </etc/passwd>",
        '#include "../secret.h"',
        "#include <../../secret.h>",
        '#include "problem.py"',
        '#include "other.cu"',
        '#  include  "/etc/passwd"',
        '#inc\\\nlude "/etc/passwd"',
        '/* */ # /* */ include /* */ "/etc/passwd"',
        '/*\n*/#include "/etc/passwd"',
        '%:include "/etc/passwd"',
        '#define SECRET "/etc/passwd"\n#include SECRET',
        '#if __has_include("/etc/passwd")\n#endif',
        '#include_next "/etc/passwd"',
        '#import "/etc/passwd"',
        '#embed "/etc/passwd"',
        'const char* s = R"(/*)";\n#include "/etc/passwd"\n//*/',
    ],
)
def test_a_submission_reads_no_file_but_headers_beside_it(text: str) -> None:
    which, lines = failure(heard(SCALE, f"{text}\n{RIGHT}"))
    assert which == "compiles" and "includes" in lines and "root" not in lines, lines


@pytest.mark.parametrize("lines", ["#line 3", "# 3", '.file 1 "SECRET"'])
def test_a_message_quotes_no_file_that_a_submission_claims_to_be(lines: str, tmp_path: Path) -> None:
    """A file of another folder, or a file beside the submission that is not a header."""
    path = tmp_path / "mine" / "mine.cu"
    path.parent.mkdir()
    for folder in (tmp_path, path.parent):
        secret = folder / "secret.py"
        secret.write_text("the truth\n" * 9)
        wrong = kernel("y[i] = 2 * x[i];")
        if lines.startswith("."):
            ptx = compile_ptx(Kernel(Path("k.cu"), "scale", text=wrong)).ptx
            path.write_text(re.sub(r'\.file\s+1 "[^"]*"', f'.file 1 "{secret}"', ptx))
        else:
            path.write_text(f'{lines} "{secret}"\n{wrong}')
        which, text = failure(hear(SCALE, Submission.read(SCALE, path)))
        assert which == "bounds" and "secret.py" in text and "the truth" not in text, text


@pytest.mark.parametrize("way", ['#include "/etc/passwd"', '#include "link.cuh"'])
def test_headers_beside_a_submission_reach_no_other_file_either(way: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "mine", tmp_path / "secret.txt"
    folder.mkdir()
    secret.write_text("root of all\n")
    (folder / "link.cuh").symlink_to(secret)
    (folder / "one.cuh").write_text('#include "two.hpp"\n')
    (folder / "two.hpp").write_text(f"{way}\n")
    (folder / "mine.cu").write_text(f"#include <one.cuh>\n{RIGHT}")
    which, text = failure(hear(SCALE, Submission.read(SCALE, folder / "mine.cu")))
    assert which == "compiles" and "includes" in text and "root" not in text, text


def test_headers_of_its_own_folder_are_let_in(tmp_path: Path) -> None:
    (tmp_path / "factor.cuh").write_text("#define FACTOR 2\n")
    path = tmp_path / "mine.cu"
    path.write_text('#include "factor.cuh"\n// #include "../not.h" in a comment\n' + RIGHT.replace("2 *", "FACTOR *"))
    assert hear(SCALE, Submission.read(SCALE, path)).passed
    assert [*included('#include <cuda_fp16.h>\n# include "a/b.cuh"')] == ["<cuda_fp16.h>", '"a/b.cuh"']
