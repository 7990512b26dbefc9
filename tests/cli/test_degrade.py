"""`drc degrade` as a user runs it: a blind test set, or one line and nothing on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.cli import assert_one_line, drc, interrupt, tiny_photos
from torch import Tensor
from torch.nn import functional as F

from drc.data.blind_set import build_blind_set
from drc.data.degrade import Degradation
from drc.data.folders import find_pairs, load_pair
from drc.evaluation.benchmark import evaluate


class Bicubic(torch.nn.Module):
    """The plainest network of all."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=4.0, mode="bicubic")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny_photos(tmp_path / "photos")


def test_a_set_that_evaluation_reads(photos: Path, tmp_path: Path) -> None:
    options = ("--kernel", "aniso", "--scale", "4", "--noise", "2", "--seed", "3")
    result = drc("degrade", "photos", "new/blind", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == ["folder: new/blind", "images: 2"]
    what = "blurred by random anisotropic 31x31 kernels, noise of 2 levels"
    assert result.stderr == f"LR images x4, {what} ...\n"
    same = build_blind_set(photos, tmp_path / "same", Degradation("aniso", 4, 2.0), seed=3)
    made = find_pairs(tmp_path / "new" / "blind", 4, "test")
    for ours, theirs in zip(made, same, strict=True):
        for one, other in zip(load_pair(ours, 4), load_pair(theirs, 4), strict=True):
            assert torch.equal(one, other)
    blurred = evaluate(Bicubic(), tmp_path / "new" / "blind")
    assert len(blurred.images) == 2
    assert blurred.psnr < evaluate(Bicubic(), photos).psnr - 1


def test_json_is_pure_and_quiet_is_silent(photos: Path, tmp_path: Path) -> None:
    options = ("--kernel", "iso", "--scale", "2", "--json", "--quiet")
    result = drc("degrade", photos, "blind", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "folder": "blind",
        "images": 2,
        "scale": 2,
        "kernel": "iso",
        "kernel_size": 21,
        "noise": 0.0,
        "seed": 0,
    }
    assert len(list((tmp_path / "blind" / "lr_x2").iterdir())) == 2


def test_sets_that_are_subsampled(photos: Path, tmp_path: Path) -> None:
    for kernel, size, words in (
        ("nearest", 1, "subsampled without blur"),
        ("blur", 7, "blurred by a 7x7 Gaussian kernel of sigma 1.6 and subsampled"),
    ):
        options = ("--kernel", kernel, "--scale", "3", "--json")
        result = drc("degrade", photos, kernel, *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stderr == f"LR images x3, {words} ...\n"
        assert json.loads(result.stdout)["kernel_size"] == size
        kernels = sorted((tmp_path / kernel).glob("gt_k_x3/*.npz"))
        assert len(kernels) == (2 if kernel == "blur" else 0)
        assert len(find_pairs(tmp_path / kernel, 3, "test")) == 2


def test_bad_input_is_one_line_and_leaves_the_disk_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    (photos / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")  # after two good ones

    def fails(code: int, arguments: str, *parts: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        assert_one_line(drc("degrade", *arguments.split(), "-q", cwd=tmp_path), code, *parts)
        assert sorted(tmp_path.rglob("*")) == before

    fails(1, "nowhere blind", "nowhere: no such folder")
    fails(1, "empty blind", "empty: no images found")
    fails(1, "photos blind", "zz.png: not an image")
    fails(1, "photos photos", "photos exists already; choose a new folder")
    fails(2, "photos blind --scale 3", "aniso has kernels for x2 and x4, not for x3")


def test_ctrl_c_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    first = next(photos.iterdir())
    for number in range(300):
        shutil.copy(first, photos / f"copy{number}.png")
    (tmp_path / "out").mkdir()
    result = interrupt(
        ["degrade", photos, "out/blind"],
        tmp_path,
        lambda: any((tmp_path / "out").glob(".blind.*/lr_x4/*.png")),
    )
    start = "interrupted before out/blind was complete; "
    assert_one_line(result, 130, "nothing is kept", start=start)
    assert not any((tmp_path / "out").iterdir())
