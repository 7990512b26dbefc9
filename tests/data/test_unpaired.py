"""LR images without HR images, from folders and from a real video file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from drc.core.errors import DataError
from drc.data.bundled import bundled_pairs
from drc.data.images import read_image, write_image
from drc.data.unpaired import find_images, unpaired_loader
from drc.data.video import read_frames

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
OPTIONS = {"patch": 12, "batch": 4, "steps": 5, "seed": 1}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo beside a folder of two, and things that are no images of the set."""
    root = tmp_path / "lr"
    for number, name in enumerate(("b.png", "inner/a.png", "inner/c.jpg")):
        photo = read_image(bundled_pairs("train")[number].hr)[:, :40, : 50 + number]
        write_image(root / name, photo)
    for name in (".hidden.png", "notes.txt", ".cache/x.png", "inner/deep/y.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"nothing")
    return root


def test_images_of_a_folder_and_of_those_in_it(photos: Path) -> None:
    names = [str(path.relative_to(photos)) for path in find_images(photos)]
    assert names == ["b.png", "inner/a.png", "inner/c.jpg"]
    assert [path.name for path in find_images(photos / "inner")] == ["a.png", "c.jpg", "y.png"]


def test_what_is_no_folder_of_images(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "gone", "gone: no such folder"),
        (photos / "b.png", "is a file; pass the folder"),
        (tmp_path / "empty", "empty: no images found"),
        (tmp_path / "gone.mp4", "gone.mp4: no such video file"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            unpaired_loader(path, **OPTIONS)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no images to crop"):
        unpaired_loader([], **OPTIONS)
    with pytest.raises(DataError, match=r"40x50 is smaller than the 41x41 crop; .* at most 40"):
        unpaired_loader(photos, **{**OPTIONS, "patch": 41})


def same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() == {"lr"} and torch.equal(a["lr"], b["lr"])
        for a, b in zip(one, other, strict=True)
    )


def test_crops_are_pieces_of_the_images_whoever_loads_them(photos: Path) -> None:
    batches = list(unpaired_loader(photos, **OPTIONS))
    assert [tuple(batch["lr"].shape) for batch in batches] == [(4, 3, 12, 12)] * 5
    whole = [read_image(path) for path in find_images(photos)]
    places = [
        (image.float() / 255).unfold(1, 12, 1).unfold(2, 12, 1).permute(1, 2, 0, 3, 4)
        for image in whole
    ]
    seen = set()
    for batch in batches:
        for crop in batch["lr"]:
            views = [
                (view.flip(dims), dims, turned)
                for turned, view in enumerate((crop, crop.transpose(1, 2)))
                for dims in ((), (1,), (2,), (1, 2))
            ]
            found = {
                (number, dims, turned)
                for number, pieces in enumerate(places)
                for view, dims, turned in views
                if (pieces == view).all(dim=(2, 3, 4)).any()
            }
            assert found
            seen |= found
    assert {number for number, *_ in seen} == {0, 1, 2}
    assert len({how for _, *how in seen for how in [tuple(how)]}) >= 6
    assert same(list(unpaired_loader(photos, **OPTIONS, workers=2)), batches)
    assert same(list(unpaired_loader(find_images(photos), **OPTIONS, start=3)), batches[3:])
    halves = [list(unpaired_loader(photos, **OPTIONS, share=(number, 2))) for number in (0, 1)]
    joined = [{"lr": torch.cat([a["lr"], b["lr"]])} for a, b in zip(*halves, strict=True)]
    assert same(joined, batches)
    assert unpaired_loader(photos, **OPTIONS, share=(0, 2)).sharded


def test_a_corrupt_image_among_many_is_skipped_and_named(photos: Path) -> None:
    for number in range(12):
        (photos / f"x{number}.png").write_bytes((photos / "b.png").read_bytes())
    bad = photos / "x5.png"
    bad.write_bytes(bad.read_bytes()[:1500])
    told: list[str] = []
    options = {**OPTIONS, "steps": 30}
    batches = list(unpaired_loader(photos, **options, on_skip=told.append))
    assert len(batches) == 30
    assert [line.startswith(f"skipped {bad}: unreadable image") for line in told] == [True]
    assert same(list(unpaired_loader(photos, **options, workers=2)), batches)


def film(path: Path, frames: int, gop: int) -> Path:
    """Frame i is grey of level 4 * i, but for one light corner."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size, stream.bit_rate = gop, 4_000_000
        for number in range(frames):
            picture = np.full((48, 64, 3), 4 * number, np.uint8)
            picture[:16, :16, 0] = 250
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels(frames: list[Tensor]) -> list[int]:
    return [round(frame[:, 20:, 20:].float().mean().item() / 4) for frame in frames]


def test_frames_are_evenly_spaced_in_order_and_in_colour(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 50, gop=100)
    frames = read_frames(path, 8)
    assert levels(frames) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert frames[0].shape == (3, 48, 64)
    assert frames[0].dtype == torch.uint8
    red, green, _ = frames[3][:, 2:12, 2:12].float().mean((1, 2))
    assert red > green + 60
    assert levels(read_frames(path)) == list(range(50))


def test_key_frames_serve_where_there_are_enough(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", 60, gop=6)
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        keys = [f.key_frame for f in container.decode(video=0)]
    at = [number for number, key in enumerate(keys) if key]
    assert len(at) >= 10
    assert set(levels(read_frames(path, 5))) <= set(at)
    assert len(read_frames(path, 5)) == 5


def test_crops_of_a_video(tmp_path: Path) -> None:
    path = film(tmp_path / "film.webm.MP4", 30, gop=10)
    batches = list(unpaired_loader(path, **OPTIONS))
    assert len({round(crop.mean().item(), 2) for batch in batches for crop in batch["lr"]}) > 8
    assert same(list(unpaired_loader(str(path), **OPTIONS, workers=1)), batches)
    with pytest.raises(DataError, match="a frame of the video: 48x64 is smaller than the 49x49"):
        unpaired_loader(path, **{**OPTIONS, "patch": 49})


def test_damaged_videos(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 60, gop=1)
    data = bytearray(path.read_bytes())
    (tmp_path / "text.mp4").write_bytes(b"no video")
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    (tmp_path / "hole.mp4").write_bytes(data)
    for name in ("text.mp4", "cut.mp4"):
        with pytest.raises(DataError, match=rf"{name}: .*; replace or remove") as caught:
            read_frames(tmp_path / name)
        assert "\n" not in str(caught.value)
    told: list[str] = []
    frames = read_frames(tmp_path / "hole.mp4", 500, told.append)
    assert 50 <= len(frames) < 60
    assert len(told) == 1
    assert "of 60 packets" in told[0]


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="there is no video in this file"):
        read_frames(tmp_path / "sound.mkv")


def test_without_pyav_the_extra_is_named(tmp_path: Path) -> None:
    """In a process whose import system has no `av`, as where the extra is not installed."""
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from drc.data.unpaired import unpaired_loader\n"
        "from drc.core.errors import UsageError\n"
        "try: unpaired_loader('film.mp4', patch=8, batch=1, steps=1, seed=0)\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert "pip install 'drc-sr[video]'" in done.stdout
