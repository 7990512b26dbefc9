"""The settings of every step: classes to build in Python, and how runs read them."""

from drc.settings.base import Settings, validated
from drc.settings.data import AdaptDataSettings, DataSettings, ImageSettings, TrainDataSettings
from drc.settings.fields import fields_of, identity, leaves, refused
from drc.settings.prune import PruneSettings
from drc.settings.reader import load_settings
from drc.settings.recovery import AdaptSettings, RecoverySettings, TrainSettings
from drc.settings.report import ReportSettings
from drc.settings.run import AdaptRun, NetworkRun, RunSettings, TrainRun
from drc.settings.search import SearchSettings

__all__ = [
    "AdaptDataSettings", "AdaptRun", "AdaptSettings", "DataSettings", "ImageSettings",
    "NetworkRun", "PruneSettings", "RecoverySettings", "ReportSettings", "RunSettings",
    "SearchSettings", "Settings", "TrainDataSettings", "TrainRun", "TrainSettings", "fields_of",
    "identity", "leaves", "load_settings", "refused", "validated",
]  # fmt: skip
