"""A rank's parent under Open MPI, mpiexec's own process or the daemon of its host: ended, or held while ranks save.

The daemon never notices that another daemon is unreachable. After a signal to mpiexec, or the death of a rank, it kills
its ranks: SIGCONT, a quarter of a second later SIGTERM, after another quarter SIGKILL. No setting changes either (PRRTE
3.0), so that a rank with a step to finish stops its parent between the last two.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

DAEMONS = ("prterun", "prted")
MPIEXEC = DAEMONS[0]
INIT = 1  # the pid of a process that nothing of its own namespace can stop
SEQUENCE = 1.0  # seconds within which a SIGTERM after a SIGCONT is the daemon's
LOOKS, BETWEEN = 10, 0.25  # polls of a running daemon before END's signals; seconds between two
END = """
left=$3
while [ $left -gt 0 ]; do
    sleep $4
    read -r stat < /proc/$1/stat || exit
    case "$stat" in
        "$1 ($2) "[Tt]*) ;;  # stopped by a rank that saves
        "$1 ($2) "*) left=$((left - 1)) ;;
        *) exit ;;
    esac
done
for signal in TERM TERM INT INT; do
    [ "$(cat /proc/$1/comm 2>/dev/null)" = $2 ] && kill -$signal $1
    sleep 0.5
done
"""
UNTIL = "until this step is done and its checkpoint saved"
CONTINUE = """
read -r _
[ "$(cat /proc/$1/comm 2>/dev/null)" = $2 ] && kill -CONT $1
"""


def parent():
    """(pid, name) of this process's parent where it is a daemon of Open MPI's, else None."""
    pid = os.getppid()
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # no /proc
        return None
    return (pid, name) if name in DAEMONS else None


def run_detached(script, *words, **streams):
    """Run a script about a process; it outlives this rank and the rank's process group."""
    command, null = ["sh", "-c", script, "sh", *map(str, words)], subprocess.DEVNULL
    return subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True, **streams)


def end_later(hosts):
    """Signal this rank's parent after a delay, if it is a daemon of Open MPI that may wait for another one, and still
    runs then. hosts: those of all ranks. Time in which the daemon is stopped does not count."""
    daemon = parent()
    if daemon and (daemon[1] != MPIEXEC or len(set(hosts)) > 1):
        with suppress(OSError):  # no sh: the daemon stays
            run_detached(END, *daemon, LOOKS, BETWEEN, stdin=subprocess.DEVNULL)


class Hold:
    """Stops the parent while this rank finishes its step and saves. `held`: whether the parent is stopped."""

    def __init__(self, speaks):
        """speaks: whether this rank prints a message for the user of the launcher."""
        self.speaks, self.held = speaks, False
        self.over = False  # whether nothing is left to finish: `release` and `hold` come from different threads
        self.lock = threading.Lock()
        self.continued = -SEQUENCE  # when the last SIGCONT came
        self.guard = None

    def notes(self, number, wanted):
        """React to a signal to this rank. wanted: whether the run is to reach the end of its step."""
        now = time.monotonic()
        if number == signal.SIGCONT:
            self.continued = now
        elif number == signal.SIGTERM and now - self.continued < SEQUENCE and wanted and not self.held:
            self.hold()

    def hold(self):
        """Stop the parent until `release`, or until this process has ended: that closes the pipe of a guard."""
        daemon = parent()
        if daemon is None or daemon[0] == INIT:
            return
        pid, name = daemon
        with self.lock:
            if self.over:
                return
            with suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
                self.held = True
                self.guard = run_detached(CONTINUE, pid, name, stdin=subprocess.PIPE)
        if self.held and self.guard is None:  # no sh
            self.release()
        elif self.held and name == MPIEXEC:
            speak_past(pid, self.speaks)

    def release(self):
        """Continue the parent, which kills this rank at once; no later signal stops the parent again."""
        with self.lock:
            self.over = True
            daemon = parent() if self.held else None
            self.held = False
            if daemon:
                with suppress(OSError):
                    os.kill(daemon[0], signal.SIGCONT)


def speak_past(pid, aloud):
    """Redirect this rank's output to the streams of mpiexec: a stopped mpiexec forwards none."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        with suppress(OSError, ValueError, AttributeError):  # a socket, or a stream that is closed
            opened = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
            for own in {number, stream.fileno()}:
                os.dup2(opened, own)
            os.close(opened)
    if aloud:
        with suppress(OSError):
            os.write(2, f"\ncore: mpiexec is stopped {UNTIL}; kill -CONT {pid} ends all at once\n".encode())


def why_not_held():
    """The reason why a signal to mpiexec kills this rank half a second later; "" where it does not."""
    daemon = parent()
    if daemon and daemon[0] == INIT:
        return f"{daemon[1]} is process {INIT}, which its ranks cannot hold while they save"
    return ""
