"""Every folder layout, and the pairs that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drc.core.errors import DataError
from drc.data.bundled import bundled_pairs
from drc.data.folders import ImagePair, find_pairs, load_pair
from drc.data.images import image_size, read_image
from drc.data.matlab import downscale


def save(path: Path, height: int = 16, width: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def benchmark_set(root: Path, count: int = 2, scale: int = 4) -> None:
    for i in range(1, count + 1):
        save(root / "HR" / f"img_{i}.png")
        save(root / "LR_bicubic" / f"X{scale}" / f"img_{i}x{scale}.png", 4, 4)


def div2k(root: Path, part: str, numbers: range, scale: int = 4) -> None:
    for i in numbers:
        save(root / f"DIV2K_{part}_HR" / f"{i:04}.png")
        save(root / f"DIV2K_{part}_LR_bicubic" / f"X{scale}" / f"{i:04}x{scale}.png", 4, 4)


def names(pairs: list[ImagePair]) -> list[str]:
    return [pair.name for pair in pairs]


def test_plain_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.tiff", ".hidden.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    for split in ("train", "test"):
        pairs = find_pairs(str(tmp_path), 4, split)
        assert names(pairs) == ["a", "b", "c"]
        assert all(pair.lr is None for pair in pairs)


@pytest.mark.parametrize("inside", ["", "DIV2K"])
def test_div2k(tmp_path: Path, inside: str) -> None:
    div2k(tmp_path / inside, "train", range(1, 4))
    div2k(tmp_path / inside, "valid", range(801, 803))
    train = find_pairs(tmp_path, 4, "train")
    assert names(train) == ["0001", "0002", "0003"]
    expected = tmp_path / inside / "DIV2K_train_LR_bicubic" / "X4" / "0001x4.png"
    assert train[0].lr == expected
    assert names(find_pairs(tmp_path, 4, "test")) == ["0801", "0802"]


def test_div2k_without_a_validation_folder(tmp_path: Path) -> None:
    div2k(tmp_path, "train", range(799, 803))
    assert names(find_pairs(tmp_path, 4, "train")) == ["0799", "0800"]
    assert names(find_pairs(tmp_path, 4, "test")) == ["0801", "0802"]


def test_div2k_of_training_images_alone_serves_both_splits(tmp_path: Path) -> None:
    div2k(tmp_path, "train", range(1, 3))
    assert find_pairs(tmp_path, 4, "test") == find_pairs(tmp_path, 4, "train")


def test_div2k_of_validation_images_alone(tmp_path: Path) -> None:
    div2k(tmp_path, "valid", range(801, 803))
    assert names(find_pairs(tmp_path, 4, "test")) == ["0801", "0802"]
    with pytest.raises(DataError, match="train split needs the folder DIV2K_train_HR"):
        find_pairs(tmp_path, 4, "train")


def test_benchmark_set(tmp_path: Path) -> None:
    benchmark_set(tmp_path / "Set5")
    pairs = find_pairs(tmp_path / "Set5", 4)
    assert names(pairs) == ["img_1", "img_2"]
    assert pairs[0].lr == tmp_path / "Set5" / "LR_bicubic" / "X4" / "img_1x4.png"


@pytest.mark.parametrize("inside", ["", "benchmark"])
def test_folder_of_sets(tmp_path: Path, inside: str) -> None:
    benchmark_set(tmp_path / inside / "Set5", count=1)
    benchmark_set(tmp_path / inside / "Set14", count=2)
    (tmp_path / inside / "other").mkdir()
    for split in ("train", "test"):
        pairs = find_pairs(tmp_path, 4, split)
        assert names(pairs) == ["Set14/img_1", "Set14/img_2", "Set5/img_1"]
        assert all(pair.lr is not None for pair in pairs)


def test_div2k_beside_benchmark(tmp_path: Path) -> None:
    div2k(tmp_path / "DIV2K", "train", range(1, 3))
    benchmark_set(tmp_path / "benchmark" / "Set5", count=1)
    assert names(find_pairs(tmp_path, 4, "train")) == ["0001", "0002"]
    assert names(find_pairs(tmp_path, 4, "test")) == ["Set5/img_1"]


@pytest.mark.parametrize("name", ["B100", "Urban100", "Manga109"])
def test_names_of_the_larger_sets(tmp_path: Path, name: str) -> None:
    stem = {"B100": "101085", "Urban100": "img_001", "Manga109": "AisazuNihaIrarenai"}[name]
    save(tmp_path / name / "HR" / f"{stem}.png")
    save(tmp_path / name / "LR_bicubic" / "X4" / f"{stem}x4.png", 4, 4)
    (pair,) = find_pairs(tmp_path, 4, "test")
    assert pair.name == f"{name}/{stem}"
    assert pair.lr == tmp_path / name / "LR_bicubic" / "X4" / f"{stem}x4.png"


@pytest.mark.parametrize("lr_name", ["im", "img"])
@pytest.mark.parametrize("inside", ["", "DIV2KRK"])
def test_div2krk(tmp_path: Path, inside: str, lr_name: str) -> None:
    for i in (1, 2):
        save(tmp_path / inside / "gt" / f"img_{i}_gt.png")
        save(tmp_path / inside / "lr_x4" / f"{lr_name}_{i}.png", 4, 4)
    pairs = find_pairs(tmp_path, 4, "test")
    assert names(pairs) == ["img_1_gt", "img_2_gt"]
    assert pairs[1].lr == tmp_path / inside / "lr_x4" / f"{lr_name}_2.png"
    with pytest.raises(DataError, match="no folder lr_x2 beside gt"):
        find_pairs(tmp_path, 2, "test")


def test_lr_images_may_have_the_names_of_their_hr_images(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png")
    save(tmp_path / "LR_bicubic" / "X2" / "a.bmp", 8, 8)
    (pair,) = find_pairs(tmp_path, 2)
    assert pair.lr == tmp_path / "LR_bicubic" / "X2" / "a.bmp"


def test_absent_bicubic_folder_means_lr_made_on_the_fly(tmp_path: Path) -> None:
    benchmark_set(tmp_path, scale=2)
    assert [pair.lr for pair in find_pairs(tmp_path, 4)] == [None, None]


def test_hr_without_its_lr_is_named(tmp_path: Path) -> None:
    benchmark_set(tmp_path, count=6)
    for i in (2, 3, 4, 5):
        (tmp_path / "LR_bicubic" / "X4" / f"img_{i}x4.png").unlink()
    message = r"X4: no LR image for 4 of 6 HR images \(img_2.png, img_3.png, img_4.png, \.\.\.\)"
    with pytest.raises(DataError, match=message):
        find_pairs(tmp_path, 4)


def test_missing_empty_and_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_pairs(tmp_path / "nowhere", 4)
    with pytest.raises(DataError, match="no images found; expected HR images, a DIV2K tree"):
        find_pairs(tmp_path, 4)
    (tmp_path / "DIV2K_train_HR").mkdir()
    with pytest.raises(DataError, match="no images found"):
        find_pairs(tmp_path, 4)
    with pytest.raises(DataError, match="is a file; pass the folder"):
        find_pairs(save(tmp_path / "a.png"), 4)


def test_unpaired_image_is_cropped_and_shrunk(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 19, 22)
    lr, hr = load_pair(ImagePair("a", path), 4)
    assert torch.equal(hr, read_image(path)[:, :16, :20])
    assert torch.equal(lr, downscale(hr[None].float(), 4)[0].to(torch.uint8))
    assert lr.dtype == hr.dtype == torch.uint8


def test_hr_of_a_pair_may_be_up_to_scale_minus_one_larger(tmp_path: Path) -> None:
    pair = ImagePair("a", save(tmp_path / "hr.png", 19, 16), save(tmp_path / "lr.png", 4, 4))
    lr, hr = load_pair(pair, 4)
    assert lr.shape == (3, 4, 4)
    assert torch.equal(hr, read_image(pair.hr)[:, :16])


@pytest.mark.parametrize("size", [(20, 16), (16, 15), (8, 8), (4, 4)])
def test_mismatched_sizes_are_both_named(tmp_path: Path, size: tuple[int, int]) -> None:
    pair = ImagePair("a", save(tmp_path / "hr.png", *size), save(tmp_path / "lr.png", 4, 4))
    with pytest.raises(DataError, match=f"lr.png is 4x4 but .*hr.png is {size[0]}x{size[1]}: not"):
        load_pair(pair, 4)


def test_image_smaller_than_the_scale(tmp_path: Path) -> None:
    pair = ImagePair("a", save(tmp_path / "a.png", 3, 9))
    with pytest.raises(DataError, match=r"a\.png: a 3x9 image is too small for x4"):
        load_pair(pair, 4)


def test_shared_benchmarks(shared: Path) -> None:
    pairs = find_pairs(shared / "data", 4, "test")
    assert len(pairs) == 19
    assert pairs[0].name == "Set14/img_001"
    assert all(pair.lr is not None for pair in pairs)
    assert len(find_pairs(shared / "data" / "BSDS400", 4)) == 400


def test_bundled_photos_are_there_and_no_scene_is_in_both_splits() -> None:
    train, test = bundled_pairs("train"), bundled_pairs("test")
    scenes = [{pair.name.split("_")[0] for pair in pairs} for pairs in (train, test)]
    assert not scenes[0] & scenes[1]
    assert len(scenes[0]) >= 4
    assert len(scenes[1]) >= 2
    for pair in train + test:
        assert min(image_size(pair.hr)) >= 300
        assert pair.lr is None
