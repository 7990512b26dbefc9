"""Photos are read upright and whole, and written with all that their format holds."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.tiff_files import write_tags
from PIL import Image, ImageCms, ImageOps, features

from drc.core.errors import DataError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.images import image_size, read_image
from drc.data.photo import Photo, photo_of
from drc.data.photo_files import (
    bits_not_read,
    encode_png16,
    encode_tiff16,
    losses,
    read_photo,
    write_photo,
)

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


LAYOUTS = {
    "contig": {"planarconfig": "contig", "rowsperstrip": 5},
    "planes": {"planarconfig": "separate", "rowsperstrip": 5},
    "tiles": {"planarconfig": "contig", "tile": (16, 16)},
    "tiled planes": {"planarconfig": "separate", "tile": (16, 16)},
}
CODES = [None, "zlib", "zlib and predictor", "lzw", "lzw and predictor", "zstd"]


def write_tiff(path: Path, levels: np.ndarray, layout: str, code: str | None, **options) -> None:
    """A TIFF file in one of the layouts and compressions."""
    options = {**LAYOUTS[layout], **options}
    if options["planarconfig"] == "separate":
        levels = np.moveaxis(levels, -1, 0)
    compression, _, predictor = (code or "").partition(" and ")
    options |= {"predictor": bool(predictor)}
    options |= {"compression": compression or None, "metadata": None}
    tifffile.imwrite(path, np.ascontiguousarray(levels), **options)


def same_in_both(path: Path, levels: np.ndarray) -> bool:
    """Whether upscaling sees `levels`, and training the same in 8 bits and without alpha."""
    colour = levels[..., :3] if levels.shape[2] > 2 else levels[..., :1].repeat(3, 2)
    rounded = colour if colour.dtype == np.uint8 else (colour.astype(int) + 128) // 257
    seen = read_image(path).permute(1, 2, 0).numpy()
    assert image_size(path) == levels.shape[:2]
    return equal(read_photo(path), levels) and np.array_equal(seen, rounded)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_16bit_tiff_files_of_others(tmp_path, deep, layout, code, order):
    path = tmp_path / "x.tif"
    for channels in ([0, 3], [0, 1, 2], [0, 1, 2, 3]):
        levels = deep[..., channels]
        kind = "minisblack" if len(channels) == 2 else "rgb"
        extra = ["unassalpha"] if 3 in channels else None
        options = {"photometric": kind, "extrasamples": extra, "byteorder": order}
        write_tiff(path, levels, layout, code, **options)
        assert same_in_both(path, levels), channels


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
def test_associated_alpha_is_divided_out(tmp_path, deep, layout, bits):
    path, white = tmp_path / "x.tif", 2**bits - 1
    levels = (deep >> (16 - bits)).astype(int)
    for channels in ([0, 3], [0, 1, 2, 3]):
        alpha = levels[..., 3:]
        stored = np.concatenate([(levels * alpha + white // 2) // white, alpha], 2)
        stored = stored[..., [*channels[:-1], 4]].astype(f"u{bits // 8}")
        kind = "minisblack" if len(channels) == 2 else "rgb"
        write_tiff(path, stored, layout, "zlib", photometric=kind, extrasamples=["assocalpha"])
        photo = read_photo(path)
        assert np.array_equal(photo.alpha, alpha)
        error = np.abs(photo.levels.astype(int) - levels[..., channels[:-1]])
        assert (error <= white // (2 * np.maximum(alpha, 1)) + 1)[alpha[..., 0] > 0].all()
        assert (photo.levels[alpha[..., 0] == 0] == 0).all()
        assert same_in_both(path, photo.joined())


def test_8bit_tiff_files_of_planes(tmp_path, rgb):
    path, grey = tmp_path / "x.tif", np.stack([rgb[..., 0], rgb[..., 1]], 2)
    for kind, levels in {"minisblack": grey, "rgb": rgb}.items():
        extra = ["unassalpha"] if kind == "minisblack" else None
        for code in (None, "zlib", "lzw"):
            write_tiff(path, levels, "planes", code, photometric=kind, extrasamples=extra)
            assert same_in_both(path, levels)


def test_16bit_tiff_files_of_other_colours(tmp_path, deep):
    path, grey = tmp_path / "x.tif", deep[..., :1]
    for order in "<>":
        options = {"byteorder": order, "photometric": "miniswhite"}
        tifffile.imwrite(path, 65535 - grey[..., 0], **options)
        assert same_in_both(path, grey)
        stored = np.concatenate([65535 - grey, deep[..., 3:]], 2)
        tifffile.imwrite(path, stored, planarconfig="contig", extrasamples=[2], **options)
        assert same_in_both(path, deep[..., [0, 3]])
    indices, table = grey[..., 0], np.arange(3 * 65536).reshape(3, 65536).astype(np.uint16)
    table[1:] = table[1:, ::-1] // [[2], [3]]
    tifffile.imwrite(path, indices, photometric="palette", colormap=table)
    assert same_in_both(path, table[:, indices].transpose(1, 2, 0))
    tifffile.imwrite(path, deep, photometric="separated", iccprofile=ICC)
    photo, ink = read_photo(path), 1 - deep / 65535
    assert np.abs(photo.levels / 65535 - ink[..., :3] * ink[..., 3:]).max() < 1e-5
    assert photo.icc is None and same_in_both(path, photo.levels)
    extra = deep[..., [0, 1, 2, 3, 0, 1]]  # extra channels, of which the second is alpha
    kinds = ["unspecified", "unassalpha", "unspecified"]
    tifffile.imwrite(path, extra, photometric="rgb", planarconfig="contig", extrasamples=kinds)
    assert same_in_both(path, extra[..., [0, 1, 2, 4]])


def test_tiff_tags_of_odd_types_are_left_out(tmp_path, deep):
    path, levels = tmp_path / "x.tif", np.ascontiguousarray(deep[..., :3])
    height, width, _ = levels.shape
    tags = {256: [width], 257: [height], 258: [16] * 3, 259: [1], 262: [2], 277: [3], 278: [height]}
    odd = {282: [72], 283: [72], 296: [2], 34675: [1, 2, 3]}  # no fraction, and no bytes
    write_tags(path, {**tags, **odd}, [levels.tobytes()])
    photo = read_photo(path)
    assert (photo.dpi, photo.icc) == (None, None) and same_in_both(path, levels)


def test_pages_are_counted(tmp_path, deep):
    path = tmp_path / "x.tif"
    for _ in range(3):
        tifffile.imwrite(
            path, deep[..., [0, 3]], photometric="minisblack", planarconfig="contig",
            extrasamples=["unassalpha"], append=True,
        )  # fmt: skip
    assert read_photo(path).frames == 3


def test_too_little_memory_is_not_told_as_a_damaged_file(tmp_path, deep, monkeypatch):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, deep[..., :3], photometric="rgb")

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tifffile.TiffPage, "asarray", full)
    with pytest.raises(MemoryError):
        read_photo(path)


def test_threads_leave_the_logger_of_tifffile_as_it_was(tmp_path, deep):
    path, logger = tmp_path / "x.tif", logging.getLogger("tifffile")
    tifffile.imwrite(path, deep[..., :3], photometric="rgb")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read_photo, [path] * 100))) == 100
    assert not logger.disabled and not logger.filters


def test_12bit_tiff_files(tmp_path, deep):
    path, values = tmp_path / "x.tif", deep[..., 0] >> 4
    pairs = values.reshape(len(values), -1, 2).astype(int)
    packed = [pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1]]
    data = (np.stack(packed, -1) & 255).astype(np.uint8).tobytes()
    tags = {256: [40], 257: [24], 258: [12], 259: [1], 262: [1], 277: [1], 278: [24]}
    write_tags(path, tags, [data])
    expected = np.round(values[..., None] * (65535 / 4095)).astype(np.uint16)
    assert expected.max() > 40000 and same_in_both(path, expected)
    write_tags(path, {**tags, 256: [8], 258: [12] * 3, 262: [2], 277: [3]}, [data])
    for read in (read_photo, read_image):
        with pytest.raises(DataError, match=r"x\.tif: a TIFF image of a kind .*; save it as PNG"):
            read(path)


def test_damaged_16bit_tiff_files(tmp_path, deep, monkeypatch, capfd, caplog):
    path = tmp_path / "x.tif"
    for code in (None, "zlib", "lzw", "zstd"):
        write_tiff(path, deep[..., :3], "planes", code, photometric="rgb")
        for cut in (-1, -300, -1500):
            content = path.read_bytes()
            path.write_bytes(content[:cut])
            for read in (read_photo, read_image):
                with pytest.raises(DataError, match=r"x\.tif: unreadable image \(.*; replace"):
                    read(path)
            path.write_bytes(content)
    content = bytearray(content)
    place = content.index(struct.pack("<HH", 273, 4)) + 8  # where the strips are said to be
    content[place : place + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(DataError, match="unreadable image"):
        read_photo(path)
    assert capfd.readouterr() == ("", "") and not caplog.records
    write_tiff(path, deep[..., :3], "planes", None, photometric="rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(DataError, match="too large to read"):
        read_photo(path)


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


@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_of_tiff_files_is_applied_by_both(tmp_path, deep, bits):
    path, levels = tmp_path / "x.tif", (deep[..., :3] >> (16 - bits)).astype(f"u{bits // 8}")
    tifffile.imwrite(path, levels, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert same_in_both(path, np.rot90(levels, -1))


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


def png(bits: int, colour: int, rows: list[bytes], transparent: list[int], width: int) -> bytes:
    """A PNG file with a transparent colour, chunk by chunk."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    marked = struct.pack(f">{len(transparent)}H", *transparent)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"tRNS", marked), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits_becomes_alpha(tmp_path, deep, channels):
    levels, path = deep[..., :channels].copy(), tmp_path / "x.png"
    marked = levels[3, 5].tolist()
    levels[:2] = marked
    levels[2] = levels[2] // 256 * 256 + (np.array(marked) + 1) % 256  # other low bytes
    rows = [row.astype(">u2").tobytes() for row in levels]
    path.write_bytes(png(16, 0 if channels == 1 else 2, rows, marked, levels.shape[1]))
    alpha = np.where((levels == marked).all(2, keepdims=True), 0, 65535).astype(np.uint16)
    assert 80 < (alpha == 0).sum() < 300
    assert same_in_both(path, np.concatenate([levels, alpha], 2))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits_becomes_alpha(tmp_path, rgb, bits):
    values = rgb[..., 0].astype(int) >> (8 - bits)
    places = np.arange(8 - bits, -1, -bits)
    rows = [bytes((row.reshape(-1, 8 // bits) << places).sum(1).tolist()) for row in values]
    for grey in range(0, 2**bits, max(2**bits // 8, 1)):
        (tmp_path / "x.png").write_bytes(png(bits, 0, rows, [grey], 40))
        levels = values[..., None] * 255 // (2**bits - 1)
        alpha = np.where(values[..., None] == grey, 0, 255)
        assert equal(
            read_photo(tmp_path / "x.png"), np.concatenate([levels, alpha], 2).astype("u1")
        )


def test_decoders_log_nothing_of_odd_files(tmp_path, deep, caplog, capfd):
    rows = [row.astype(">u2").tobytes() for row in deep[..., 0] >> 8]
    (tmp_path / "x.png").write_bytes(png(8, 0, [row[1::2] for row in rows], [300], 40))
    assert read_photo(tmp_path / "x.png").size == (24, 40)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_ppm_files_of_16_bits(tmp_path, deep):
    path, levels = tmp_path / "x.ppm", deep[..., :3]
    path.write_bytes(b"P6 40 # wide\n24 65535\n" + levels.astype(">u2").tobytes())
    assert same_in_both(path, levels)
    path.write_bytes(b"P6 40 24 1023\n" + (levels >> 6).astype(">u2").tobytes())
    assert same_in_both(path, np.round((levels >> 6) * (65535 / 1023)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="truncated"):
        read_photo(path)
    path.write_text("P3 40 24 65535 " + " ".join(str(value) for value in levels.ravel()))
    assert read_photo(path).file_bits == 16 and read_photo(path).white == 255


def test_files_that_are_read_in_8_bits_say_so(tmp_path, rgb):
    data = bytes([1, 218, 0, 2]) + struct.pack(">HHHH", 3, 40, 24, 3) + bytes(500)
    planes = rgb[::-1].transpose(2, 0, 1).astype(">u2") * 257
    (tmp_path / "x.sgi").write_bytes(data + planes.tobytes())
    photo = read_photo(tmp_path / "x.sgi")
    assert (photo.file_bits, photo.white) == (16, 255) and np.array_equal(photo.levels, rgb)
    for name in ("x.png", "x.jpg", "x.ppm", "x.tif", "x.gif", "x.webp", "x.bmp", "x.jp2", "x.sgi"):
        Image.fromarray(rgb).save(tmp_path / name)
        assert read_photo(tmp_path / name).file_bits is None
    content = (tmp_path / "x.jp2").read_bytes()
    place = content.index(b"\xff\x4f\xff\x51") + 42
    deeper = bytes([11, 1, 1])
    assert content[place : place + 9 : 3] == bytes([7, 7, 7])
    for channel in range(3):  # says that 12 bits are coded, which changes the levels alone
        content = content[: place + 3 * channel] + deeper[:1] + content[place + 3 * channel + 1 :]
    (tmp_path / "x.jp2").write_bytes(content)
    assert read_photo(tmp_path / "x.jp2").file_bits == 12


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_files(tmp_path, rgb):
    path, deeper = tmp_path / "x.avif", tmp_path / "deeper.avif"
    Image.fromarray(rgb).save(path)
    assert read_photo(path).file_bits is None
    content = path.read_bytes()
    place = content.index(b"pixi") + 9  # behind version, flags and the number of channels
    assert content[place - 1 : place + 3] == bytes([3, 8, 8, 8])
    deeper.write_bytes(content[:place] + bytes([10]) + content[place + 1 :])
    with Image.open(path) as image:  # of which this Pillow writes none in 10 bits
        assert bits_not_read(deeper, image) == 10
    with pytest.raises(DataError, match="unreadable image"):
        read_photo(deeper)


@pytest.mark.parametrize("ending", [".gif", ".png", ".tif"])
def test_damaged_later_frames_do_not_matter(tmp_path, rgb, ending):
    path = tmp_path / f"x{ending}"
    others = [Image.fromarray(rgb[::-1]), Image.fromarray(rgb[:, ::-1])]
    Image.fromarray(rgb).save(path, save_all=True, append_images=others)
    first, content = read_photo(path), path.read_bytes()
    assert first.frames == 3
    for share in (0.95, 0.6, 0.5):
        path.write_bytes(content[: int(share * len(content))])
        assert equal(read_photo(path), first.levels)


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
    for name, part in {
        "text.tif": "not an image",
        "f.tif": "floating",
        "cut.png": "unread",
    }.items():
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


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_damaged_exif_data_do_not_warn(tmp_path, rgb, ending):
    path, exif = tmp_path / f"x{ending}", Image.Exif()
    exif[0x010F] = "a maker whose name is cut off"
    Image.fromarray(rgb).save(path, exif=exif.tobytes()[:-20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_photo(path).size == (24, 40)


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
