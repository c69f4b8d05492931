"""Fine-tuning for INT8: a rung of the ladder (`rung`), and on its own inside a training (`standalone`)."""

from edgewright_converters.fine_tuning.distillation import distillation_loss
from edgewright_converters.fine_tuning.standalone import FineTuned, fine_tune, quantisation_aware
from edgewright_converters.fine_tuning.student import Student
from edgewright_converters.fine_tuning.training import TrainingLimits

__all__ = [
    "FineTuned",
    "Student",
    "TrainingLimits",
    "distillation_loss",
    "fine_tune",
    "quantisation_aware",
]
