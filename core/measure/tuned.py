"""The choices that `core tune` found on this machine, and those that are shipped, as a run reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.cache import cache_folder, read_json
from core.errors import DeviceError
from core.plan import TunedChoice
from core.verdicts import place_of

if TYPE_CHECKING:
    from core.device.protocol import Device

FILE, FORMAT = "tuned.json", 1


def chip_of(device: Device) -> str:
    """The key of tuned choices: the GPU by its name and architecture, or the cpu with its cores."""
    if not device.real_time:
        raise DeviceError("the simulator's time does not predict a GPU's", hint="tune where the run will be")
    return place_of(device) if device.model else str(device.describe())


def tuned_path() -> Path:
    return cache_folder() / FILE


def load_tuned(device: Device) -> dict[str, TunedChoice]:
    """The choices of `core tune` for this chip; none where it never ran."""
    if not device.real_time:
        return {}
    held = read_json(tuned_path())
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        return {}
    entries = held.get("chips", {}).get(chip_of(device), {})
    return {key: TunedChoice(entry["variant"], entry["config"]) for key, entry in entries.items()}


def load_shipped(device: Device, files: Sequence[Path]) -> dict[str, TunedChoice]:
    """The choices of `files` for this device's architecture, a later file before an earlier one; of a file's choices
    for the same, that for the nearest number of multiprocessors. None in the simulator and on the cpu."""
    if not device.tuned_arch:
        return {}
    from core.measure.choices_file import read_choices

    taken: dict[str, TunedChoice] = {}
    for path in files:
        here = [choice for choice in read_choices(path) if choice["arch"] == device.tuned_arch]
        here.sort(key=lambda choice: -abs(choice.get("sms", device.tuned_sms) - device.tuned_sms))  # the nearest last
        taken |= {choice["what"]: TunedChoice(choice["variant"], choice["config"]) for choice in here}
    return taken
