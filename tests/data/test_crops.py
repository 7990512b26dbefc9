"""Crops: aligned, and the same whatever the workers, the order and the start."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from drc.core.errors import DataError
from drc.data.bundled import bundled_pairs
from drc.data.crops import CropDataset, ImageDataset, crop_loader
from drc.data.folders import ImagePair
from drc.data.matlab import downscale

SCALE = 4


def save(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def blocks(tmp_path: Path) -> list[ImagePair]:
    """Pairs whose HR image is LR with each pixel repeated, so that misalignment shows anywhere."""
    rng = np.random.default_rng(0)
    pairs = []
    for name, (height, width) in {"a": (20, 30), "b": (25, 17)}.items():
        lr = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        hr = lr.repeat(SCALE, 0).repeat(SCALE, 1)
        files = save(tmp_path / f"{name}.png", hr), save(tmp_path / f"{name}x4.png", lr)
        pairs.append(ImagePair(name, *files))
    return pairs


def equal(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in ("lr", "hr")
    )


def test_lr_and_hr_crops_show_the_same_place(blocks: list[ImagePair]) -> None:
    dataset = CropDataset(blocks, SCALE, patch=8, length=60, seed=3)
    assert len(dataset) == 60
    for item in dataset:
        lr, hr = item["lr"], item["hr"]
        assert lr.shape == (3, 8, 8)
        assert hr.shape == (3, 32, 32)
        assert lr.dtype == hr.dtype == torch.float32
        assert torch.equal(hr, lr.repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2))


def test_crops_are_pieces_of_the_whole_image_in_all_eight_views(blocks: list[ImagePair]) -> None:
    """Every crop is found in the whole LR image under exactly one flip and transposition."""
    pair = blocks[0]
    whole = ImageDataset([pair], SCALE)[0]["lr"]
    pieces = {
        whole[:, row : row + 8, column : column + 8].numpy().tobytes(): (row, column)
        for row in range(13)
        for column in range(23)
    }
    views, places = set(), set()
    for item in CropDataset([pair], SCALE, patch=8, length=200, seed=0):
        found = []
        for flips in ((), (1,), (2,), (1, 2)):
            for turned in (False, True):
                crop = item["lr"].transpose(1, 2) if turned else item["lr"]
                content = crop.flip(flips).contiguous().numpy().tobytes()
                if content in pieces:
                    found.append(((flips, turned), pieces[content]))
        assert len(found) == 1
        views.add(found[0][0])
        places.add(found[0][1])
    assert len(views) == 8
    assert {row for row, _ in places} == set(range(13))
    assert {column for _, column in places} == set(range(23))


def test_photo_crops_are_the_shrunk_hr_crops() -> None:
    """Away from the border of the crop; a transposition changes the order of the roundings."""
    for item in CropDataset(bundled_pairs("train"), SCALE, patch=24, length=8, seed=1):
        shrunk = downscale(item["hr"][None], SCALE, value_range=1.0)[0]
        difference = (shrunk - item["lr"])[:, 2:-2, 2:-2].abs().max() * 255
        assert difference < 2.1


def test_items_depend_on_seed_and_index_alone(blocks: list[ImagePair]) -> None:
    def dataset(seed: int, **kwargs) -> CropDataset:
        return CropDataset(blocks, SCALE, patch=8, length=20, seed=seed, **kwargs)

    forward = [dataset(5)[i] for i in range(20)]
    again = dataset(5)
    backward = [again[i] for i in reversed(range(20))][::-1]
    assert equal(forward, backward)
    assert equal(forward, list(dataset(5, cache_bytes=0)))
    assert not equal(forward, list(dataset(6)))
    assert equal(list(dataset(-1)), list(dataset(-1)))
    assert not any(torch.equal(a["lr"], b["lr"]) for a, b in pairwise(forward))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_do_not_depend_on_workers_or_start(blocks: list[ImagePair]) -> None:
    def batches(**kwargs) -> list[dict[str, Tensor]]:
        return list(crop_loader(blocks, SCALE, patch=8, batch=3, steps=5, seed=2, **kwargs))

    full = batches()
    assert len(full) == 5
    assert full[0]["lr"].shape == (3, 3, 8, 8)
    assert equal(batches(workers=2), full)
    for start in (1, 4, 5):
        assert equal(batches(start=start), full[start:])
    assert equal(batches(start=2, workers=1), full[2:])
    dataset = CropDataset(blocks, SCALE, patch=8, length=15, seed=2)
    assert torch.equal(full[2]["hr"][1], dataset[7]["hr"])


def test_loader_does_not_touch_the_global_generators(blocks: list[ImagePair]) -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    CropDataset(blocks, SCALE, patch=8, length=3, seed=2)[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_loader_can_be_iterated_again(blocks: list[ImagePair]) -> None:
    loader = crop_loader(blocks, SCALE, patch=8, batch=2, steps=3, seed=2)
    assert equal(list(loader), list(loader))
    assert len(loader) == 3


def test_too_small_an_image_is_named_with_what_would_fit(blocks: list[ImagePair]) -> None:
    message = r"b\.png: 100x68 is smaller than the 80x80 crop of patch 20 at x4; .* at most 17"
    with pytest.raises(DataError, match=message):
        crop_loader(blocks, SCALE, patch=20, batch=2, steps=3, seed=2)
    CropDataset(blocks, SCALE, patch=17, length=1, seed=2)[0]


def test_no_images() -> None:
    with pytest.raises(DataError, match="no images to crop"):
        CropDataset([], SCALE, patch=8, length=1, seed=0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named_in_one_line(blocks: list[ImagePair], workers: int) -> None:
    path = blocks[1].hr
    path.write_bytes(path.read_bytes()[:2000])
    loader = crop_loader(blocks, SCALE, patch=8, batch=2, steps=8, seed=2, workers=workers)
    with pytest.raises(DataError, match=r"b\.png: unreadable image") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_an_unreadable_header_is_named_at_once(blocks: list[ImagePair]) -> None:
    blocks[0].hr.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.png: not an image"):
        CropDataset(blocks, SCALE, patch=8, length=1, seed=0)


def test_index_outside_the_length(blocks: list[ImagePair]) -> None:
    with pytest.raises(IndexError):
        CropDataset(blocks, SCALE, patch=8, length=4, seed=0)[4]


def test_whole_images(blocks: list[ImagePair]) -> None:
    dataset = ImageDataset(blocks, SCALE)
    assert [item["name"] for item in dataset] == ["a", "b"]
    assert dataset[1]["lr"].shape == (3, 25, 17)
    assert dataset[1]["hr"].shape == (3, 100, 68)
    assert dataset[1]["hr"].max() <= 1
