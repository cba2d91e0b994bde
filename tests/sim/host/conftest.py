"""The stub of the driver, built once, and programs run on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import stub as stub_driver
from driver_host import START


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stub")
    stub_driver.build(folder)
    return folder


@pytest.fixture
def host(stub, tmp_path):
    """host(code, **environment): runs `code` against the stub; what it hands to `out`."""

    def run(code, **environment):
        env = {**os.environ, "LD_LIBRARY_PATH": str(stub), **environment}
        code = f"{START}\nFOLDER = {str(tmp_path)!r}\n{code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("@@")[2])

    return run
