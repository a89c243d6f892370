"""Ignite metrics and MONAI handlers of MCP-MedSAM."""

from custom.handlers.best_weights import BestWeights
from custom.handlers.early_stop import EarlyStop
from custom.handlers.example_page import ExamplePage
from custom.handlers.finite_loss import FiniteLoss
from custom.handlers.loss_alone import LossAlone
from custom.handlers.mask_report import MaskReport
from custom.handlers.modality_metrics import ModalityMetric, ModalityReport
from custom.handlers.prediction_images import PredictionImages
from custom.handlers.restarts import Restarts
from custom.handlers.stop_signal import StopOnSignal, leave_if_stopped
from custom.handlers.training_curve import TrainingCurve
from custom.handlers.weight_average import UpdateAverage, WeightAverage

__all__ = [
    "BestWeights",
    "EarlyStop",
    "ExamplePage",
    "FiniteLoss",
    "LossAlone",
    "MaskReport",
    "ModalityMetric",
    "ModalityReport",
    "PredictionImages",
    "Restarts",
    "StopOnSignal",
    "TrainingCurve",
    "UpdateAverage",
    "WeightAverage",
    "leave_if_stopped",
]
