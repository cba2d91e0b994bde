"""Programs in processes of their own that begin with modules already imported: forks of one process that waits.

A program runs as a script of `python -c` would, and ends as one. POSIX only.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECONDS = 300.0  # of a program
WAITING = """
import json as _json, os as _os
while True:
    _line = b""
    while not _line.endswith(b"\\n") and (_byte := _os.read(0, 1)):
        _line += _byte
    if not _line:
        raise SystemExit
    _child = _os.fork()
    if not _child:
        break
    _status = _os.waitstatus_to_exitcode(_os.waitpid(_child, 0)[1])
    _os.write(1, b"%d\\n" % _status)
_request = _json.loads(_line)
_os.chdir(_request["folder"])
_os.environ.clear()
_os.environ.update(_request["environment"])
for _number, _path in enumerate(("/dev/null", _request["out"], _request["err"])):
    _file = _os.open(_path, _os.O_RDWR | _os.O_CREAT, 0o600)
    _os.dup2(_file, _number)
    _os.close(_file)
exec(compile(_request["code"], "<string>", "exec"))
"""


class Forked:
    """imports: statements that every program begins with. environment: from the start, for LD_LIBRARY_PATH."""

    def __init__(self, imports: str, environment: Mapping[str, str]) -> None:
        words, pipe = [sys.executable, "-c", imports + WAITING], subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, env=dict(environment))

    def run(self, code: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a program whose output is collected in files of the folder."""
        out, err = folder / "forked.out", folder / "forked.err"
        for file in (out, err):
            file.unlink(missing_ok=True)
        request = {
            "code": code,
            "environment": dict(environment),
            "folder": os.getcwd(),
            "out": str(out),
            "err": str(err),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], SECONDS)[0]:
            self._process.kill()
            raise TimeoutError(f"the program takes more than {SECONDS} seconds:\n{code}")
        status = int(self._process.stdout.readline())
        return subprocess.CompletedProcess([code], status, out.read_text("utf-8"), err.read_text("utf-8"))

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()
