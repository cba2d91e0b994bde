"""The stub of the driver, built once, and programs run on it."""

from __future__ import annotations

import json
import os

import forked
import pytest
import stub as stub_driver
from driver_host import IMPORTS, START


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stub")
    stub_driver.build(folder)
    return folder


@pytest.fixture(scope="session")
def programs(stub):
    started = forked.Forked(IMPORTS, {**os.environ, "LD_LIBRARY_PATH": str(stub)})
    yield started
    started.close()


@pytest.fixture
def host(stub, tmp_path, programs):
    """host(code, **environment): runs `code` against the stub; what it hands to `out`."""

    def run(code, **environment):
        env = {**os.environ, "LD_LIBRARY_PATH": str(stub), **environment}
        done = programs.run(f"{START}\nFOLDER = {str(tmp_path)!r}\n{code}", tmp_path, env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("@@")[2])

    return run
