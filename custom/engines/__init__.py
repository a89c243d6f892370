"""What MONAI's training and evaluation engines are given."""

from custom.engines.lr_schedule import step_decay_then_final
from custom.engines.prepare_batch import PromptPrepareBatch

__all__ = ["PromptPrepareBatch", "step_decay_then_final"]
