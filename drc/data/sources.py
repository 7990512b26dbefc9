"""Where the crops of a compression come from: a loader of the caller's, or a folder of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drc.core.distributed import process_share
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair
from drc.data.inventory import Source, named
from drc.data.loader import OnSkip
from drc.settings import ImageSettings, RecoverySettings, SearchSettings

_CALIBRATION_BATCH = 8


class Crops(ABC):
    """The training images of one compression, as its steps look at them."""

    @abstractmethod
    def calibration(self, search: SearchSettings) -> Iterable[Any]:
        """Batches of `(lr, hr)` for search and ranking, which can be iterated again."""

    @abstractmethod
    def recovery(self, settings: RecoverySettings) -> Any:
        """Batches to train on, or a function from a step to the batches from there on."""

    @abstractmethod
    def calibration_in_words(self, search: SearchSettings) -> str:
        """What search and ranking look at, for a report."""

    @abstractmethod
    def recovery_in_words(self, settings: RecoverySettings) -> str:
        """What recovery looks at, for a report."""

    @property
    def sources(self) -> list[Source]:
        """Name and files of every image that is known by name."""
        return []

    @property
    def is_sharp(self) -> bool:
        """Whether LR crops are made by the bicubic filter alone."""
        return False


@dataclass(frozen=True)
class GivenCrops(Crops):
    """The batches of a loader of the caller's.

    Attributes:
        loader: batches as `drc.data.batches.unpack` accepts them, or a function from a step to
            the batches from there on.
    """

    loader: Any

    def calibration(self, search: SearchSettings) -> Iterable[Any]:
        by_step = callable(self.loader) and not isinstance(self.loader, Iterable)
        return self.loader(0) if by_step else self.loader

    def recovery(self, settings: RecoverySettings) -> Any:
        return self.loader

    def calibration_in_words(self, search: SearchSettings) -> str:
        return f"{search.patches} crops of the given loader"

    def recovery_in_words(self, settings: RecoverySettings) -> str:
        return f"{settings.steps} steps on the given loader"


@dataclass(frozen=True)
class ImageCrops(Crops):
    """Random crops of images in files.

    Attributes:
        images: the pairs, at least one.
        scale: HR side over LR side.
        data: how they are read.
        seed: of the crops.
        degradation: makes the LR crops; None for LR files or bicubic ones.
        on_skip: given a line for each image that cannot be used.
    """

    images: Sequence[ImagePair]
    scale: int
    data: ImageSettings
    seed: int = 0
    degradation: Degradation | None = None
    on_skip: OnSkip | None = None

    def calibration(self, search: SearchSettings) -> Iterable[Any]:
        batch = min(_CALIBRATION_BATCH, search.patches)
        return self._loader(search.patch, batch, -(-search.patches // batch))

    def recovery(self, settings: RecoverySettings) -> Callable[[int], Any]:
        """From a step to the batches from there on, this process's rows of them."""
        return lambda start: self._loader(
            settings.patch, settings.batch, settings.steps, start=start, share=process_share()
        )

    def calibration_in_words(self, search: SearchSettings) -> str:
        crop = f"{search.patch}x{search.patch}"
        return f"{search.patches} crops of LR {crop} from {self._in_words()}"

    def recovery_in_words(self, settings: RecoverySettings) -> str:
        crop = f"{settings.patch}x{settings.patch}"
        return (
            f"{settings.steps} steps of {settings.batch} crops of LR {crop} from {self._in_words()}"
        )

    @property
    def sources(self) -> list[Source]:
        return [named(pair) for pair in self.images]

    @property
    def is_sharp(self) -> bool:
        return self.degradation is None and any(pair.lr is None for pair in self.images)

    def _loader(self, patch: int, batch: int, steps: int, **more: Any) -> Any:
        return crop_loader(
            self.images, self.scale, patch=patch, batch=batch, steps=steps, seed=self.seed,
            workers=self.data.workers, cache_bytes=self.data.cache_bytes,
            degradation=self.degradation, on_skip=self.on_skip, **more,
        )  # fmt: skip

    def _in_words(self) -> str:
        folder, count = self.data.data, len(self.images)
        images = f"{count} images of {folder}" if folder else f"{count} bundled photos"
        return images if self.degradation is None else f"{images}, {self.degradation.in_words()}"
