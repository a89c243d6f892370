"""Parts for MONAI's training and evaluation engines."""

from custom.engines.config_record import config_text
from custom.engines.inferer import AutocastInferer
from custom.engines.interaction import SimulatedClicks
from custom.engines.lr_schedule import parameter_groups, step_decay_then_final
from custom.engines.prepare_batch import PromptPrepareBatch
from custom.engines.ranks import rank_share
from custom.engines.workers import ignore_stop_signals

__all__ = [
    "AutocastInferer",
    "PromptPrepareBatch",
    "SimulatedClicks",
    "config_text",
    "ignore_stop_signals",
    "parameter_groups",
    "rank_share",
    "step_decay_then_final",
]
