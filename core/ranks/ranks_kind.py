"""RanksKind, an engine that joins processes into a group. A plugin brings one by the hook `core_ranks`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from core.devices.kind import DeviceKind
from core.ranks.group import Ranks
from core.ranks.launched import LaunchedProcess


class RanksKind(ABC):
    """An engine, before any process has joined.

    name: for records and messages. priority: the first engine that can join the processes is taken, highest first.
    """

    name: ClassVar[str] = ""
    priority: ClassVar[int] = 10
    origin: str = ""  # the plugin's name; set while it is registered

    @abstractmethod
    def why_not(self, launched: LaunchedProcess, device: DeviceKind) -> str | None:
        """The reason why this engine cannot join processes that were started so, for this kind of device;
        None where it can. Imports no library."""

    @abstractmethod
    def open(self, launched: LaunchedProcess, device: DeviceKind) -> Ranks:
        """The group, joined, of processes that run on this kind of device: all ranks call it.

        Raises DeviceError where the library cannot be used."""

    def describe(self) -> str:
        """The installed library and its version, for `core doctor`; "" where it is not installed. It joins nothing."""
        return ""

    def problem(self) -> str:
        """A fault of the installation and its repair, or ""."""
        return ""
