"""`core view`: a run as one page: lenses on a step, its tensors, texts, memory and kernels, and the same as text.

A page is one HTML file without network and library. It is made of one dictionary per lens, which `--json` prints and
from which the terminal lines are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.lens import Lens as Lens
    from core.lens import LensMark as LensMark
    from core.view.looking import view as view
    from core.view.replay import ReplayedStep as ReplayedStep
    from core.view.replay import replay as replay
    from core.view.subject import Subject as Subject

__getattr__ = imports_of(__name__)
