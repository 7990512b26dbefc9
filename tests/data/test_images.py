"""Reading every kind of image file as 8-bit RGB, refusing the rest in one line, and writing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drc.core.errors import DataError, RunError
from drc.data.images import image_size, read_image, to_uint8, to_unit, write_image

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def write_png16(path: Path, values: np.ndarray, colour_type: int) -> None:
    """A 16-bit PNG of `(H, W, C)` values, by hand: Pillow cannot write 16-bit colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def random_rgb(height: int = 7, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG", ".ppm"])
def test_rgb_of_odd_size(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    image = random_rgb()
    Image.fromarray(image).save(path)
    assert torch.equal(read_image(path), chw(image))
    assert read_image(str(path)).dtype == torch.uint8
    assert image_size(path) == (7, 5)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = random_rgb()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert torch.equal(
        read_image(tmp_path / "a.png"), torch.from_numpy(grey.copy()).expand(3, 7, 5)
    )


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(random_rgb()[..., 0] > 127).save(tmp_path / "a.png")
    assert set(read_image(tmp_path / "a.png").unique().tolist()) == {0, 255}


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    image = random_rgb()
    alpha = np.zeros((7, 5, 1), np.uint8)
    Image.fromarray(np.concatenate([image, alpha], 2)).save(tmp_path / "rgba.png")
    assert torch.equal(read_image(tmp_path / "rgba.png"), chw(image))
    Image.merge("LA", [Image.fromarray(x) for x in (image[..., 0], alpha[..., 0])]).save(
        tmp_path / "la.png"
    )
    assert torch.equal(read_image(tmp_path / "la.png")[1], torch.from_numpy(image[..., 0].copy()))


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    colours = np.array([[10, 20, 30], [200, 100, 0], [255, 255, 255]], np.uint8)
    indices = np.random.default_rng(0).integers(0, 3, (6, 9), dtype=np.uint8)
    image = Image.fromarray(indices, "L").convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", **({"transparency": 1} if transparent else {}))
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert torch.equal(read_image(tmp_path / "a.png"), chw(colours[indices]))


@pytest.mark.parametrize(
    ("colour_type", "channels"), [(GREY, 1), (RGB, 3), (RGBA, 4)], ids=["grey", "rgb", "rgba"]
)
def test_16_bit_is_divided_by_257_and_rounded(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (9, 11, channels)).astype(np.uint16)
    values[0, :4, 0] = (0, 128, 129, 65535)  # the first step up is between 128 and 129
    write_png16(tmp_path / "a.png", values, colour_type)
    expected = np.round(values[..., :3] / 257).astype(np.uint8)
    assert torch.equal(read_image(tmp_path / "a.png"), chw(expected).expand(3, 9, 11))


def test_16_bit_grey_with_alpha_keeps_the_high_byte(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (9, 11, 2)).astype(np.uint16)
    write_png16(tmp_path / "a.png", values, GREY_ALPHA)
    levels = read_image(tmp_path / "a.png")[0].numpy().astype(float)
    assert np.abs(levels - values[..., 0] / 257).max() < 1


def test_8_bit_values_stored_in_16_bits_come_back(tmp_path: Path) -> None:
    image = random_rgb()
    write_png16(tmp_path / "a.png", image.astype(np.uint16) * 257, RGB)
    assert torch.equal(read_image(tmp_path / "a.png"), chw(image))


def test_16_bit_tiff(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (9, 11)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    expected = np.round(values / 257).astype(np.uint8)
    assert torch.equal(read_image(tmp_path / "a.tif")[2], torch.from_numpy(expected))


def test_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by a quarter to view"
    Image.fromarray(random_rgb()).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (3, 7, 5)


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def bit_flipped(path: Path) -> None:
    Image.fromarray(random_rgb(64, 64)).save(path)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(bytes(content))


def floats(path: Path) -> None:
    Image.fromarray(random_rgb()[..., 0].astype(np.float32)).save(path, format="TIFF")


def wide_integers(path: Path) -> None:
    Image.fromarray(random_rgb()[..., 0].astype(np.int32) * 10**6).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such image"),
        (lambda path: path.write_bytes(b""), "not an image"),
        (lambda path: path.write_text("hello\n" * 100), "not an image"),
        (lambda path: path.mkdir(), "unreadable"),
        (truncated, "unreadable"),
        (bit_flipped, "unreadable"),
        (floats, "floating-point"),
        (wide_integers, "exceed 16 bits"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path: Path, make, reason: str) -> None:
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_large_an_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(random_rgb(64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large"):
        read_image(tmp_path / "a.png")


def test_write_then_read(tmp_path: Path) -> None:
    image = chw(random_rgb())
    write_image(tmp_path / "new" / "a.png", image)
    assert torch.equal(read_image(tmp_path / "new" / "a.png"), image)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_write_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    image = chw(random_rgb())
    with pytest.raises(DataError, match=r"\(3, H, W\) uint8, not \(3, 7, 5\) torch.float32"):
        write_image(tmp_path / "a.png", image.float())
    with pytest.raises(DataError, match=r"'\.xyz'; use \.png"):
        write_image(tmp_path / "a.xyz", image)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_image(tmp_path / "file" / "a.png", image)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_unit_conversions_invert_each_other() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_unit(levels)), levels)
    values = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.5])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]
