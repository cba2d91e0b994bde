"""An end for Open MPI's daemons that wait for a host they cannot reach: they never notice it by themselves.

A rank that ends its run ends itself. Its parent, mpiexec's own process or the daemon of its host, then ends within a
second or two, unless it waits for another daemon behind a cable that was cut.
"""

import os
import subprocess
from pathlib import Path

DAEMONS = ("prterun", "prted")
SCRIPT = """
sleep {seconds}
for signal in TERM TERM INT INT; do
    [ "$(cat /proc/{pid}/comm 2>/dev/null)" = {name} ] && kill -$signal {pid}
    sleep 0.5
done
"""
SECONDS = 2.5  # until a daemon is signalled, as Ctrl-C twice would do


def end_daemon_later():
    """Start a process that signals this rank's parent, if that is a daemon of Open MPI and is still there by then."""
    pid = os.getppid()
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name in DAEMONS:
            script = SCRIPT.format(seconds=SECONDS, pid=pid, name=name)
            null = subprocess.DEVNULL
            subprocess.Popen(["sh", "-c", script], stdin=null, stdout=null, stderr=null, start_new_session=True)
    except OSError:  # no /proc, no sh: the daemons stay
        pass
