"""Loading for long runs: shares of batches, images that cannot be used, and what is not cached."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from drc.core.errors import DataError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.cache import ImageCache
from drc.data.crops import CropDataset, crop_loader
from drc.data.degrade import Degradation
from drc.data.draws import Skips
from drc.data.folders import ImagePair, find_pairs
from drc.data.images import read_image, write_image
from drc.data.loader import StepLoader
from drc.training.feed import share_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PATCH, SCALE, STEPS = 8, 2, 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty small images, each of a random colour, so that a crop tells whose it is."""
    rng = np.random.default_rng(0)
    for number in range(20):
        picture = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (24, 30, 3)).copy()
        picture[::3, ::2] //= 2
        Image.fromarray(picture).save(tmp_path / f"{number:02}.png")
    return tmp_path


def loader(folder: Path, batch: int = 5, steps: int = STEPS, **options) -> StepLoader:
    pairs = find_pairs(folder, SCALE)
    return crop_loader(pairs, SCALE, patch=PATCH, batch=batch, steps=steps, seed=3, **options)


def equal(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() == {"lr", "hr"} and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def damage(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-60])
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_share_is_the_rows_that_the_loop_would_take(
    folder: Path, count: int, workers: int
) -> None:
    full = list(loader(folder))
    for number in range(count):
        ours = loader(folder, share=(number, count), workers=workers, start=1)
        assert ours.sharded == (count > 1)
        assert len(ours) == STEPS - 1
        process = SimpleNamespace(num_processes=count, process_index=number)
        whole = [{key: share_of(batch[key], process) for key in batch} for batch in full[1:]]
        assert equal(list(ours), whole)


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0)])
def test_a_share_that_cannot_be(folder: Path, share: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"process -?\d of \d cannot be"):
        loader(folder, share=share)


def test_a_share_reads_no_other_rows(folder: Path) -> None:
    """Half of a batch of two is one image per step."""
    dataset = loader(folder, batch=2, steps=3, share=(1, 2))
    assert list(dataset.sampler) == [1, 3, 5]


@pytest.mark.parametrize("broken", ["pixels", "header", "gone", "small", "pair"])
def test_an_unusable_image_is_left_out_and_named_once(folder: Path, broken: str) -> None:
    name, reason = "07.png", {"gone": "no such image file", "small": "smaller than"}.get(broken, "")
    pairs = find_pairs(folder, SCALE)
    path = folder / name
    if broken == "pixels":
        damage(path)
        reason = "unreadable image"
    elif broken == "header":
        path.write_bytes(b"nothing")
        reason = "not an image"
    elif broken == "gone":
        path.unlink()
    elif broken == "pair":
        write_image(folder / "lr" / name, torch.zeros(3, 10, 15, dtype=torch.uint8))
        pairs[7] = ImagePair("07", path, folder / "lr" / name)
        reason = "not a x2 pair"
    told: list[str] = []
    options = {"patch": PATCH, "batch": 4, "steps": 20, "seed": 3, "on_skip": told.append}
    ours = crop_loader(pairs, SCALE, **options)
    if broken == "small":  # as a file that is replaced while the run goes on
        Image.new("RGB", (15, 24)).save(path)
    batches = list(ours)
    assert len(batches) == 20
    assert len(told) == 1
    assert told[0].startswith("skipped ")
    assert name in told[0]
    assert reason in told[0]
    assert "\n" not in told[0]
    assert equal(list(ours), batches)
    assert len(told) == 1
    # What the other items show does not change, and where they start or who loads them neither.
    if broken != "small":
        for start, workers in ((0, 2), (11, 0), (13, 1)):
            again: list[str] = []
            options["on_skip"] = again.append
            other = crop_loader(pairs, SCALE, start=start, workers=workers, **options)
            assert equal(list(other), batches[start:])
            assert set(again) <= set(told)
            assert len(again) <= 1


def test_items_of_good_images_are_those_of_the_whole_folder(folder: Path) -> None:
    pairs = find_pairs(folder, SCALE)
    whole = list(CropDataset(pairs, SCALE, PATCH, length=100, seed=1))
    damage(folder / "07.png")
    ours = CropDataset(pairs, SCALE, PATCH, length=100, seed=1)
    drawn = [ours.draw(index) for index in range(100)]
    hit = [bool(skipped) for _, skipped in drawn]
    assert 1 <= sum(hit) < 20
    for (item, _), expected, again in zip(drawn, whole, hit, strict=True):
        assert torch.equal(item["hr"], expected["hr"]) != again


@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_a_tenth_is_an_error(folder: Path, workers: int) -> None:
    damage(folder / "03.png")
    damage(folder / "04.png")
    told: list[str] = []
    list(loader(folder, steps=40, workers=workers, on_skip=told.append))
    assert sorted(line.split("/")[-1][:6] for line in told) == ["03.png", "04.png"]
    damage(folder / "11.png")
    with pytest.raises(DataError, match=r"^3 of 20 images cannot be used: .*\.png: ") as caught:
        list(loader(folder, steps=40, workers=workers))
    assert all(name in str(caught.value) for name in ("03.png", "04.png", "11.png"))
    assert "\n" not in str(caught.value)


def test_headers_are_read_before_the_first_step(folder: Path) -> None:
    told: list[str] = []
    (folder / "02.png").write_bytes(b"")
    loader(folder, on_skip=told.append)
    assert len(told) == 1
    for number in (5, 9):
        (folder / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match="3 of 20 images cannot be used"):
        loader(folder)


def test_the_first_of_many_unusable_images_are_named() -> None:
    skips = Skips(60)
    assert [skips.add(number, f"image {number}: bad") for number in (3, 3, 4)] == [
        True,
        False,
        True,
    ]
    for number in range(10, 14):
        skips.add(number, "bad")
    with pytest.raises(DataError) as caught:
        skips.add(20, "bad")
    start = "7 of 60 images cannot be used: image 3: bad; image 4: bad; bad, ..."
    assert str(caught.value) == start


def test_of_many_images_not_every_header_is_read_at_the_start(folder: Path) -> None:
    """Some of 6,000 are gone; that shows once they are drawn."""
    pairs = [ImagePair(str(number), folder / "00.png") for number in range(6000)]
    for number in range(1, 1500, 3):  # every third is looked at, from the first on
        pairs[number] = ImagePair("gone", folder / "gone.png")
    Image.new("RGB", (15, 24)).save(folder / "small.png")
    drawn = int(np.random.default_rng([1, 0]).integers(len(pairs)))
    assert drawn % 3
    pairs[drawn] = ImagePair("small", folder / "small.png")
    told: list[str] = []
    options = {"patch": PATCH, "batch": 10, "steps": 20, "seed": 1, "on_skip": told.append}
    ours = crop_loader(pairs, SCALE, **options)
    assert not told
    list(ours)
    assert sum("gone.png: no such image file" in line for line in told) >= 5
    assert sum("small.png: 24x15 is smaller than the 16x16 crop" in line for line in told) == 1
    pairs[3] = pairs[drawn]
    with pytest.raises(DataError, match=r"^.*small\.png: 24x15 is smaller"):
        crop_loader(pairs, SCALE, **options)


def test_uncached_crops_equal_cached_ones(tmp_path: Path) -> None:
    """In every kind of file, at odd scales and sides; the LR window alone is shrunk then."""
    photo = read_image(bundled_pairs("test")[0].hr).permute(1, 2, 0).numpy()[:151, :203]
    picture = Image.fromarray(photo)
    for name, mode in (("rgb", "RGB"), ("grey", "L"), ("palette", "P"), ("alpha", "RGBA")):
        picture.convert(mode).save(tmp_path / f"{name}.png")
    picture.save(tmp_path / "photo.jpg")
    Image.fromarray(photo[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for scale, kind in product((3, 4), (None, "iso", "nearest")):
        blind = Degradation(kind, scale) if kind else None
        options = {"patch": 20, "length": 24, "seed": 0, "degradation": blind}
        pairs = find_pairs(tmp_path, scale)
        kept = list(CropDataset(pairs, scale, **options))
        assert equal(kept, list(CropDataset(pairs, scale, cache_bytes=0, **options)))


def test_uncached_pairs_with_lr_files(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, *size in (("LR_bicubic/X3/ax3.png", 40, 41), ("HR/a.png", 121, 125)):
        levels = torch.randint(0, 256, (3, *size), generator=generator)
        write_image(tmp_path / name, levels.to(torch.uint8))
    pairs = find_pairs(tmp_path, 3)
    options = {"patch": 20, "length": 24, "seed": 0}
    kept = list(CropDataset(pairs, 3, **options))
    assert equal(kept, list(CropDataset(pairs, 3, cache_bytes=0, **options)))


def test_a_cache_gives_back_what_it_took_until_it_is_full() -> None:
    cache = ImageCache(4, 3 * 60)
    one, two, three = (torch.full((3, *side), i) for i, side in enumerate(((4, 5), (2, 3), (5, 5))))
    one, two, three = one.byte(), two.byte(), three.byte()
    assert cache.get(2) is None
    cache.put(2, (two, one))
    cache.put(2, (three,))  # another process was first
    assert cache.fits(180 - 78)
    assert not cache.fits(180 - 77)
    cache.put(0, (three,))
    cache.put(1, (three,))
    assert cache.get(1) is None
    assert all(torch.equal(x, y) for x, y in zip(cache.get(2) or (), (two, one), strict=True))
    (kept,) = cache.get(0) or ()
    assert torch.equal(kept, three)
    empty = ImageCache(1, 0)
    empty.put(0, (one,))
    assert empty.get(0) is None
    assert ImageCache(1, 2**60).fits(0)  # more than any machine has


def test_workers_share_what_they_decode(folder: Path) -> None:
    """After a pass by workers, this process reads no file any more."""
    pairs = find_pairs(folder, SCALE)
    ours = crop_loader(pairs, SCALE, patch=PATCH, batch=8, steps=30, seed=0, workers=2)
    batches = list(ours)
    for pair in pairs:
        pair.hr.unlink()
    assert equal(list(ours), batches)


def test_a_dataset_in_another_process_has_a_cache_of_its_own(folder: Path) -> None:
    """As where workers are spawned."""
    ours = CropDataset(find_pairs(folder, SCALE), SCALE, PATCH, length=30, seed=0)
    items = list(ours)
    assert equal(list(pickle.loads(pickle.dumps(ours))), items)
