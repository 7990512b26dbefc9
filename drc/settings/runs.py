"""The old place of the settings of a run."""

from drc.settings import (  # noqa: F401
    AdaptDataSettings,
    AdaptRun,
    DataSettings,
    ImageSettings,
    PruneSettings,
    RecoverySettings,
    ReportSettings,
    RunSettings,
    SearchSettings,
    TrainDataSettings,
    TrainRun,
)
from drc.settings.report import TILE_OVERLAP  # noqa: F401
from drc.settings.run import WHICH_NETWORK  # noqa: F401
