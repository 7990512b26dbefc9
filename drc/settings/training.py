"""The old place of the settings of trainings."""

from drc.settings import AdaptSettings, RecoverySettings, TrainSettings  # noqa: F401
