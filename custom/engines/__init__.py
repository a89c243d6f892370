"""What MONAI's training and evaluation engines are given."""

from custom.engines.inferer import AutocastInferer
from custom.engines.lr_schedule import parameter_groups, step_decay_then_final
from custom.engines.prepare_batch import PromptPrepareBatch

__all__ = ["AutocastInferer", "PromptPrepareBatch", "parameter_groups", "step_decay_then_final"]
