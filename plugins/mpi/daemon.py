"""A rank's parent under Open MPI, mpiexec's own process or the daemon of its host: ended, or held while ranks save.

It never notices by itself that it cannot reach another daemon; and where mpiexec is signalled, or a rank has died, it
kills its ranks: SIGCONT, a quarter of a second later SIGTERM, after another quarter SIGKILL. There is no setting for
either (PRRTE 3.0), so that a rank with a step to finish stops its parent between the last two.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

DAEMONS = ("prterun", "prted")
MPIEXEC = DAEMONS[0]
INIT = 1  # the pid of a process that nothing of its own namespace can stop
SEQUENCE = 1.0  # seconds within which a SIGTERM behind a SIGCONT is the daemon's
SECONDS = 2.5  # until a daemon is signalled, as Ctrl-C twice would do
END = f"""
sleep {SECONDS}
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


def apart(script, pid, name, **streams):
    """Run a script about a process; it outlives this rank and the rank's process group."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(pid), name], stdout=null, stderr=null, start_new_session=True, **streams
    )


def end_later():
    """Signal this rank's parent in a while, if that is a daemon of Open MPI and is still there by then."""
    daemon = parent()
    if daemon:
        with suppress(OSError):  # no sh: the daemon stays
            apart(END, *daemon, stdin=subprocess.DEVNULL)


class Hold:
    """Stops the parent while this rank finishes its step and saves. `held`: whether it is stopped now."""

    def __init__(self, speaks):
        """speaks: whether this rank has a word for the person at the launcher."""
        self.speaks, self.held = speaks, False
        self.continued = -SEQUENCE  # when the last SIGCONT came
        self.guard = None

    def notes(self, number, wanted):
        """A signal came to this rank. wanted: whether the run is to reach the end of its step."""
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
        with suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
            self.held = True
            self.guard = apart(CONTINUE, pid, name, stdin=subprocess.PIPE)
        if self.held and self.guard is None:  # no sh
            self.release()
        elif self.held and name == MPIEXEC:
            speak_past(pid, self.speaks)

    def release(self):
        """Continue the parent; it kills this rank at once."""
        if self.held:
            self.held = False
            with suppress(OSError):
                os.kill(os.getppid(), signal.SIGCONT)


def speak_past(pid, aloud):
    """What this rank prints from now on goes where mpiexec would have printed it: a stopped one passes nothing on."""
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
    """The reason why a signal to mpiexec kills this rank half a second later, in words; "" where it does not."""
    daemon = parent()
    if daemon and daemon[0] == INIT:
        return f"{daemon[1]} is process {INIT}, which its ranks cannot hold while they save"
    return ""
