"""The run config: a TOML file with its `extends`, `[on.DEVICE]` and `--set`, merged and checked.

It is not the model: dims, ops, optimizers and plugins are named here and looked up by the floors above, which
report a wrong name with `RunConfig.where`.
"""

from __future__ import annotations

from core.config.layers import find_config as find_config
from core.config.layers import read_toml as read_toml
from core.config.load import RunConfig as RunConfig
from core.config.load import load_config as load_config
from core.config.options import check_options as check_options
from core.config.resolved import resolve_config as resolve_config
from core.config.rules import micro_steps as micro_steps
