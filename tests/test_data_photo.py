"""Photos are read upright and whole, and written with all that their format holds."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from drc.data.bundled import bundled_pairs
from drc.data.deep import encode_png16, encode_tiff16
from drc.data.images import read_image
from drc.data.photo import Photo, photo_of, read_photo
from drc.data.photo_files import losses, write_photo
from drc.errors import DataError, UsageError

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """Part of a real photo, 24x40."""
    image = read_image(bundled_pairs("test")[0].hr)
    return image[:, 100:124, 100:140].permute(1, 2, 0).contiguous().numpy()


@pytest.fixture(scope="module")
def deep(rgb: np.ndarray) -> np.ndarray:
    """The photo in 16 bits, with low bytes that matter and an alpha: `(24, 40, 4)`."""
    low = np.random.default_rng(0).integers(0, 256, (*rgb.shape[:2], 4))
    alpha = np.linspace(0, 255, rgb.shape[1]).astype(int)[None, :, None].repeat(len(rgb), 0)
    return (np.concatenate([rgb, alpha], 2) * 256 + low).astype(np.uint16)


def equal(photo: Photo, levels: np.ndarray) -> bool:
    joined = photo.joined()
    return joined.dtype == levels.dtype and np.array_equal(joined, levels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_8bit_images_come_back_as_they_were(tmp_path, rgb, mode, ending):
    levels = np.asarray(Image.fromarray(rgb).convert(mode)).copy()
    levels = levels if levels.ndim == 3 else levels[..., None]
    if "A" in mode:
        levels[..., -1] = rgb[..., 0]
    path = tmp_path / f"x{ending}"
    write_photo(path, photo_of(Image.fromarray(levels.squeeze())))
    assert Image.open(path).mode == mode
    assert equal(read_photo(path), levels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16bit_images_come_back_bit_for_bit(tmp_path, deep, channels, ending):
    levels = deep[..., [[0], [0, 3], [0, 1, 2], [0, 1, 2, 3]][channels - 1]]
    path, again = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    encode = encode_png16 if ending == ".png" else encode_tiff16
    path.write_bytes(encode(levels, ICC, (300.0, 150.0)))
    photo = read_photo(path)
    assert equal(photo, levels)
    assert photo.white == 65535 and (photo.alpha is not None) == (channels in (2, 4))
    write_photo(again, photo)
    assert equal(read_photo(again), levels)
    if ending == ".tif":
        assert np.array_equal(tifffile.imread(again).reshape(levels.shape), levels)
    else:  # another decoder's opinion, to the 8 bits that it has of colour
        with Image.open(again) as image:
            image.load()
            high = np.asarray(image)[..., :3] if channels > 1 else np.asarray(image)
            assert np.array_equal(high, high16(levels) if channels > 1 else levels[..., 0])


def high16(levels: np.ndarray) -> np.ndarray:
    colour = levels[..., :1].repeat(3, 2) if levels.shape[2] == 2 else levels[..., :3]
    return (colour >> 8).astype(np.uint8)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16bit_tiff_files_of_others(tmp_path, deep, order, compression, channels):
    path, levels = tmp_path / "x.tif", deep[..., :channels]
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(
        path, levels, photometric="rgb", extrasamples=extra, compression=compression,
        byteorder=order, rowsperstrip=5,
    )  # fmt: skip
    assert equal(read_photo(path), levels)


def test_16_bits_become_8_by_rounding(tmp_path, deep):
    path = tmp_path / "x.png"
    path.write_bytes(encode_png16(deep[..., :3]))
    expected = ((deep[..., :3].astype(int) + 128) // 257).transpose(2, 0, 1)
    assert np.array_equal(read_image(path).numpy(), expected)
    assert equal(read_photo(path).in_8bit(), expected.transpose(1, 2, 0).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".webp"])
def test_exif_orientation_is_applied(tmp_path, rgb, orientation, ending):
    path, exif = tmp_path / f"x{ending}", Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == ".webp" else {}
    Image.fromarray(rgb).save(path, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((40, 24) if orientation > 4 else (24, 40))
    assert equal(read_photo(path), expected)
    if ending == ".png":  # and not a second time from what is written
        write_photo(tmp_path / "y.png", read_photo(path))
        assert equal(read_photo(tmp_path / "y.png"), expected)


def test_orientation_of_16bit_tiff(tmp_path, deep):
    path, levels = tmp_path / "x.tif", deep[..., :3]
    tifffile.imwrite(path, levels, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert equal(read_photo(path), np.rot90(levels, -1))


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_are_looked_up(tmp_path, rgb, transparent):
    image = Image.fromarray(rgb).quantize(16)
    colours = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "x.png", **({"transparency": 3} if transparent else {}))
    photo = read_photo(tmp_path / "x.png")
    assert np.array_equal(photo.levels, colours)
    if transparent:
        assert np.array_equal(photo.alpha[..., 0] == 0, np.asarray(image) == 3)
    else:
        assert photo.alpha is None


def test_a_transparent_colour_becomes_alpha(tmp_path, rgb):
    marked = rgb.copy()
    marked[:5] = (1, 2, 3)
    Image.fromarray(marked).save(tmp_path / "x.png", transparency=(1, 2, 3))
    alpha = read_photo(tmp_path / "x.png").alpha[..., 0]
    assert (alpha[:5] == 0).all() and alpha[5:].mean() > 250


def test_one_bit_and_cmyk(tmp_path, rgb):
    Image.fromarray(rgb).convert("1").save(tmp_path / "one.png")
    assert set(np.unique(read_photo(tmp_path / "one.png").levels)) == {0, 255}
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "x.jpg", quality=100, icc_profile=ICC)
    photo = read_photo(tmp_path / "x.jpg")
    assert photo.icc is None
    assert np.abs(photo.levels.astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_profile_and_dpi_are_kept(tmp_path, rgb, ending):
    Image.fromarray(rgb).save(tmp_path / f"x{ending}", icc_profile=ICC, dpi=(300, 150))
    photo = read_photo(tmp_path / f"x{ending}")
    write_photo(tmp_path / f"y{ending}", photo)
    with Image.open(tmp_path / f"y{ending}") as image:
        assert image.info["icc_profile"] == ICC
        if ending != ".webp":
            assert tuple(map(round, map(float, image.info["dpi"]))) == (300, 150)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_profile_and_dpi_are_kept_in_16_bits(tmp_path, deep, ending):
    write_photo(tmp_path / f"x{ending}", Photo(deep[..., :3], None, ICC, (300.0, 150.0)))
    photo = read_photo(tmp_path / f"x{ending}")
    assert photo.icc == ICC
    assert tuple(map(round, photo.dpi)) == (300, 150)


def test_what_a_format_does_not_hold_is_left_out_and_told(tmp_path, deep):
    photo, path = Photo(deep[..., :3], deep[..., 3:]), tmp_path / "x.jpg"
    assert losses(photo, path) == ["alpha", "16 bits"]
    write_photo(path, photo, quality=100)
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - deep[..., :3] // 257).mean() < 2
    assert losses(photo, tmp_path / "x.png") == []
    assert losses(photo, tmp_path / "x.webp") == ["16 bits"]
    write_photo(tmp_path / "x.webp", photo, quality=100)
    assert equal(read_photo(tmp_path / "x.webp"), photo.in_8bit().joined())


def test_what_cannot_be_read(tmp_path, rgb, monkeypatch):
    (tmp_path / "text.tif").write_text("no image")
    Image.fromarray(rgb[..., 0].astype(np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(rgb).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    for name, part in {"text.tif": "unreadable", "f.tif": "floating", "cut.png": "unread"}.items():
        with pytest.raises(DataError, match=part):
            read_photo(tmp_path / name)
    Image.fromarray(rgb).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # an error from twice as many on
    with pytest.raises(DataError, match="too large to read"):
        read_photo(tmp_path / "huge.png")


def test_a_large_image_does_not_warn(tmp_path, rgb, monkeypatch):
    Image.fromarray(rgb).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert equal(read_photo(tmp_path / "large.png"), rgb)


def test_what_cannot_be_written(tmp_path, rgb):
    wide = Photo(np.zeros((1, 70000, 3), np.uint8))
    for name in ("x.jpg", "x.webp"):
        with pytest.raises(DataError, match="use --format png"):
            write_photo(tmp_path / name, wide)
    with pytest.raises(UsageError, match="quality is 0"):
        write_photo(tmp_path / "x.jpg", Photo(rgb), 0)
    with pytest.raises(UsageError, match=r"not written as '\.xyz'"):
        write_photo(Path("x.xyz"), Photo(rgb))
    assert not any(tmp_path.iterdir())
