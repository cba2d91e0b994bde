"""The detection of NVIDIA devices, by the system's own listings: no driver is loaded.

`--device auto` takes such a device: if it cannot be used, that is an error, never a quiet run on the cpu.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NVIDIA_VENDOR = "0x10de"  # PCI
DISPLAY_CLASSES = ("0x0300", "0x0302")  # PCI: VGA and 3D controllers
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")


def nvidia_device(root: Path = Path("/")) -> str:
    """The evidence of an NVIDIA device on this machine; "" without any. `root` is for tests."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    if sys.platform == "win32":
        driver = Path(os.environ.get("SYSTEMROOT", "C:\\Windows")) / "System32" / "nvcuda.dll"
        return str(driver) if driver.exists() else ""
    for node in sorted((root / "dev").glob("nvidia[0-9]*")):
        return str(node)
    wsl = root / "usr/lib/wsl/lib/libcuda.so.1"
    if (root / "dev/dxg").exists() and wsl.exists():
        return str(wsl)
    if any((root / mark.lstrip("/")).exists() for mark in CONTAINER_MARKS) or "KUBERNETES_SERVICE_HOST" in os.environ:
        return ""  # a container sees the host's PCI devices without being able to use them
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if _line(device / "vendor") == NVIDIA_VENDOR and _line(device / "class").startswith(DISPLAY_CLASSES):
            return f"PCI device {device.name}"
    return ""


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
