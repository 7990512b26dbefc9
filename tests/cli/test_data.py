"""Images that cannot be used: one line from the real command that names the file."""

from __future__ import annotations

import pytest
import torch
from helpers.cli import TinyWork, assert_one_line, drc

from drc.data.images import write_image


def _search(work: TinyWork, *arguments: str):
    return drc("search", "--config", work.config, *arguments, cwd=work.folder)


def _image(height: int, width: int) -> torch.Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


def test_a_missing_folder(work):
    assert_one_line(_search(work, "--data", "nowhere"), 1, "nowhere", "no such folder")


def test_an_empty_folder(work):
    (work.folder / "empty").mkdir()
    assert_one_line(_search(work, "--data", "empty"), 1, "empty", "no images")


def test_an_unreadable_image(work):
    (work.folder / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    assert_one_line(_search(work), 1, "broken.png")


def test_a_too_small_image_says_what_patch_would_fit(work):
    write_image(work.folder / "photos" / "small.png", _image(40, 80))
    assert_one_line(_search(work), 1, "small.png", "40x80", "patch of at most 10")


def test_lr_and_hr_that_do_not_match(work):
    benchmark = work.folder / "set"
    for part, size in (("HR", 96), ("LR_bicubic/X4", 20)):
        (benchmark / part).mkdir(parents=True)
        write_image(benchmark / part / "one.png", _image(size, size))
    assert_one_line(_search(work, "--data", "set"), 1, "one.png", "20x20", "96x96")


def test_hr_without_its_lr(work):
    benchmark = work.folder / "set"
    for part, names in (("HR", "ab"), ("LR_bicubic/X4", "a")):
        (benchmark / part).mkdir(parents=True)
        for name in names:
            size = 96 if part == "HR" else 24
            write_image(benchmark / part / f"{name}.png", _image(size, size))
    assert_one_line(_search(work, "--data", "set"), 1, "no LR image", "b.png")


@pytest.mark.parametrize("option", ["--test-data"])
def test_the_test_images_are_checked_before_the_search(work, option):
    assert_one_line(_search(work, option, "nowhere"), 1, "nowhere")
    assert not any((work.folder / "runs").glob("*"))
