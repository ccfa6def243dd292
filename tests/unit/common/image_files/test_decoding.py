"""Image files of every kind that Pillow writes, against what a viewer shows of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from rootstock.common.errors import DataError
from rootstock.common.image_files.decoding import (
    Conversion,
    GreyRangeError,
    UnreadableError,
    decode,
)
from rootstock.common.image_files.listing import SUFFIXES
from rootstock.common.image_files.reading import ImageReader

HEIGHT, WIDTH = 24, 32
RAMP = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], -1)


def levels(path: Path, **options: Any) -> np.ndarray:
    """Return the grey levels (H, W) of a picture that is decoded to grey."""
    array = np.asarray(decode(path, **options).image)
    assert (array == array[..., :1]).all()
    return array[..., 0]


def saved(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path: Path, array: np.ndarray, colour_type: int, *chunks: bytes) -> Path:
    """Write 16 bits a channel, which Pillow does for grey alone."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def write_tiff(
    path: Path, array: np.ndarray, *, bits: int, photometric: int = 1, sample_format: int = 1
) -> Path:
    """Write a plain TIFF of one channel, with tags that Pillow does not write."""
    data = array.tobytes()
    height, width = HEIGHT, WIDTH
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + (struct.pack("<I", value) if kind == 4 else struct.pack("<HH", value, 0))
        for tag, kind, value in tags
    )
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(data))
        + data
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", 0)
    )
    return path


LOSSLESS = sorted(SUFFIXES - {".jpg", ".jpeg", ".jpe", ".jfif", ".avif", ".pbm", ".pfm", ".gif"})
FORMATS = {
    **dict.fromkeys([".jpf", ".jpx", ".j2k"], "JPEG2000"),
    **dict.fromkeys([".apng"], "PNG"),
    **dict.fromkeys([".jfif", ".jpe"], "JPEG"),
}


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".pfm"}))
def test_every_ending_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    picture = Image.fromarray(COLOUR)
    options = {"lossless": True} if suffix == ".webp" else {}
    picture = picture.convert("1") if suffix == ".pbm" else picture
    picture = picture.convert("L") if suffix == ".pgm" else picture
    picture.save(path, FORMATS.get(suffix), **options)
    decoded = decode(path)
    assert decoded.image.mode == "RGB"
    assert decoded.conversions == ()
    if suffix in LOSSLESS:
        assert (np.asarray(decoded.image) == np.asarray(picture.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *((".png", mode) for mode in ("RGB", "L", "P", "1")),
        *((".jpg", mode) for mode in ("RGB", "L", "YCbCr")),
        *((".tif", mode) for mode in ("RGB", "L", "P", "1", "YCbCr")),
        *((".bmp", mode) for mode in ("RGB", "L", "P", "1")),
    ],
)
def test_ordinary_pictures_stay_bit_for_bit(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(COLOUR).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert (np.asarray(decode(path).image) == expected).all()
    assert decode(path).conversions == ()


WIDE = RAMP.astype(np.uint16) * 257


def ppm(path: Path) -> Path:
    path.write_bytes(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + WIDE.astype(">u2").tobytes())
    return path


def ppm_of_12_bits(path: Path) -> Path:
    values = (WIDE >> 4).astype(">u2")
    path.write_bytes(b"P5 %d %d 4095\n" % (WIDTH, HEIGHT) + values.tobytes())
    return path


def packed_12_bits(path: Path) -> Path:
    bits = np.unpackbits((WIDE >> 4).astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return write_tiff(path, np.packbits(bits[:, 4:]), bits=12)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", lambda path: saved(path, WIDE)),
        ("a.tif", lambda path: saved(path, WIDE)),
        ("lzw.tif", lambda path: saved(path, WIDE, compression="tiff_lzw")),
        ("a.jp2", lambda path: saved(path, WIDE)),
        ("a.pgm", ppm),
        ("12.pgm", ppm_of_12_bits),
        ("12.tif", packed_12_bits),
        ("big-endian.tif", lambda path: _big_endian(path)),
    ],
)
def test_grey_of_16_bits_is_scaled_by_the_format(
    tmp_path: Path, name: str, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path / name)
    assert (levels(path) == RAMP).all()
    assert decode(path).conversions == (Conversion.DEEP_GREY,)


def _big_endian(path: Path) -> Path:
    Image.frombytes("I;16B", (WIDTH, HEIGHT), WIDE.astype(">u2").tobytes()).save(path)
    return path


@pytest.mark.parametrize(
    ("channels", "colour_type", "expected"),
    [
        (3, 2, Conversion.DEEP_COLOUR),
        (2, 4, Conversion.DEEP_COLOUR),
        (4, 6, Conversion.DEEP_COLOUR),
    ],
)
def test_16_bits_a_channel_keep_the_high_byte(
    tmp_path: Path, channels: int, colour_type: int, expected: Conversion
) -> None:
    array = np.stack([WIDE] * channels, -1)
    if channels in (2, 4):
        array[..., -1] = 65535
    path = write_png(tmp_path / "a.png", array, colour_type)
    assert (levels(path) == RAMP).all()
    assert decode(path).conversions == (expected,)


def test_a_transparent_grey_value_of_16_bits_is_white(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", WIDE, 0, chunk(b"tRNS", struct.pack(">H", 0)))
    assert (levels(path)[WIDE == 0] == 255).all()
    assert (levels(path)[WIDE > 0] == RAMP[WIDE > 0]).all()


@pytest.mark.parametrize(
    ("array", "bits"),
    [(RAMP, 8), (WIDE, 16), (np.packbits(RAMP > 99, axis=1), 1)],
    ids=["8", "16", "1"],
)
def test_white_is_zero(tmp_path: Path, array: np.ndarray, bits: int) -> None:
    black = levels(write_tiff(tmp_path / "black.tif", array, bits=bits))
    white = levels(write_tiff(tmp_path / "white.tif", array, bits=bits, photometric=0))
    assert (white == 255 - black).all()


VALUES_OF_NO_RANGE = {
    "float": (lambda p: saved(p, (RAMP / 255).astype(np.float32)), (0.0, 1.0)),
    "32 bits": (lambda p: saved(p, RAMP.astype(np.int32) * 1000), (0.0, 255_999.0)),
    "unsigned 32 bits": (
        lambda p: write_tiff(p, RAMP.astype("<u4") * 16_777_216, bits=32),
        (0.0, 4_294_967_295.0),
    ),
    "signed 16 bits": (
        lambda p: write_tiff(p, RAMP.astype("<i2") * 16 - 1024, bits=16, sample_format=2),
        (-1024.0, 3071.0),
    ),
    "signed 8 bits": (
        lambda p: write_tiff(
            p, (RAMP.astype(np.int16) - 128).astype("i1"), bits=8, sample_format=2
        ),
        (-128.0, 127.0),
    ),
}


@pytest.mark.parametrize("kind", VALUES_OF_NO_RANGE)
def test_grey_of_no_known_range_needs_one(tmp_path: Path, kind: str) -> None:
    write, grey_range = VALUES_OF_NO_RANGE[kind]
    path = write(tmp_path / "a.tif")
    with pytest.raises(GreyRangeError, match="nothing says which are black and white"):
        decode(path)
    with pytest.raises(
        DataError, match=r"a\.tif: holds .*grey values, .* set data\.grey_range = \["
    ):
        ImageReader().read(path)
    difference = levels(path, grey_range=grey_range).astype(int) - RAMP
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    array = RAMP.astype(np.float32)
    array[3, 4] = value
    path = saved(tmp_path / "a.tif", array)
    with pytest.raises(UnreadableError, match=r"a\.tif: holds values that are no numbers"):
        decode(path, (0.0, 255.0))


def test_a_range_scales_grey_of_more_than_8_bits_and_no_other(tmp_path: Path) -> None:
    assert (levels(saved(tmp_path / "12.png", WIDE >> 4), grey_range=(0, 4095)) == RAMP).all()
    assert (levels(saved(tmp_path / "8.png", RAMP), grey_range=(0, 4095)) == RAMP).all()
    clipped = levels(saved(tmp_path / "16.png", WIDE), grey_range=(16_000, 32_000))
    assert (clipped[WIDE < 16_000] == 0).all()
    assert (clipped[WIDE > 32_000] == 255).all()


TURNS = {
    1: COLOUR,
    2: COLOUR[:, ::-1],
    3: COLOUR[::-1, ::-1],
    4: COLOUR[::-1],
    5: COLOUR.transpose(1, 0, 2),
    6: COLOUR.transpose(1, 0, 2)[:, ::-1],
    7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
    8: COLOUR.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_pictures_are_turned_as_their_exif_says(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    if suffix == ".tif":
        options["tiffinfo"] = {274: orientation}
    Image.fromarray(COLOUR).save(path, exif=exif, **options)
    decoded = decode(path)
    assert (np.asarray(decoded.image) == TURNS[orientation]).all()
    assert decoded.conversions == (() if orientation == 1 else (Conversion.TURNED,))


def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(path).image.size == (WIDTH, HEIGHT)


def transparent(mode: str) -> Image.Image:
    """Return a red or black picture; its right half is transparent."""
    picture = Image.new("RGBA", (WIDTH, HEIGHT), (200, 0, 0, 255))
    picture.paste((10, 20, 30, 0), (WIDTH // 2, 0, WIDTH, HEIGHT))
    if mode == "P":
        indexed = Image.new("P", picture.size, 0)
        indexed.putpalette([200, 0, 0, 10, 20, 30])
        indexed.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT))
        indexed.info["transparency"] = 1
        return indexed
    if mode == "RGB":
        plain = picture.convert("RGB")
        plain.info["transparency"] = (10, 20, 30)
        return plain
    if mode == "L":
        grey = picture.convert("L")
        grey.info["transparency"] = grey.getpixel((WIDTH - 1, 0))
        return grey
    return picture.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGBA", ".png"), ("LA", ".png"), ("P", ".png"), ("RGB", ".png"), ("L", ".png"),
     ("P", ".gif"), ("RGBA", ".webp"), ("RGBA", ".tif"), ("LA", ".tif")],
)  # fmt: skip
def test_what_is_transparent_is_white(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture = transparent(mode)
    options = {"transparency": picture.info["transparency"]} if picture.info else {}
    options |= {"lossless": True, "exact": True} if suffix == ".webp" else {}
    picture.save(path, **options)
    decoded = decode(path)
    array = np.asarray(decoded.image)
    assert (array[:, WIDTH // 2 :] == 255).all()
    assert (array[:, : WIDTH // 2] < 255).all()
    assert decoded.conversions == (Conversion.ALPHA,)


def lab(path: Path) -> None:
    srgb, lab_profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, lab_profile, "RGB", "LAB")
    turned = ImageCms.applyTransform(Image.fromarray(COLOUR), transform)
    assert turned is not None
    turned.save(path)


@pytest.mark.parametrize(
    ("name", "write", "conversion", "most"),
    [
        ("a.jpg", lambda p: Image.fromarray(COLOUR).convert("CMYK").save(p), Conversion.CMYK, 12),
        ("a.tif", lambda p: Image.fromarray(COLOUR).convert("CMYK").save(p), Conversion.CMYK, 0),
        ("lab.tif", lab, Conversion.LAB, 3),
    ],
)
def test_other_colour_spaces_are_converted_and_named(
    tmp_path: Path, name: str, write: Callable[[Path], None], conversion: Conversion, most: float
) -> None:
    write(tmp_path / name)
    decoded = decode(tmp_path / name)
    difference = np.asarray(decoded.image).astype(int) - COLOUR
    assert abs(difference).mean() <= most
    assert decoded.conversions == (conversion,)


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.gif", None), ("a.tif", None), ("a.png", None), ("a.webp", None), ("a.jpg", "MPO")],
)
def test_of_several_frames_the_first_is_read(tmp_path: Path, name: str, form: str | None) -> None:
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("white", "red")]
    path = tmp_path / name
    first = Image.new("RGB", (WIDTH, HEIGHT), "black")
    first.save(path, form, save_all=True, append_images=others)
    decoded = decode(path)
    assert np.asarray(decoded.image).max() <= 2
    # An MPO is a phone's photograph with a map of its brightness behind it.
    assert decoded.conversions == (() if form == "MPO" else (Conversion.FIRST_FRAME,))


@pytest.mark.parametrize("damage", ["no bytes", "text", "half", "a script", "a folder"])
def test_what_is_no_image_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a\nb.jpg"
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "JPEG")
    content = {
        "no bytes": b"",
        "text": b"no image",
        "half": buffer.getvalue()[:400],
        "a script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    }
    if damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes(content[damage])
    with pytest.raises(UnreadableError, match=r"a\\nb\.jpg: cannot be read as an image.*replace"):
        decode(path)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 10_000)).save(path)
    with pytest.raises(UnreadableError, match=r"huge\.png: .*; replace it by a smaller one"):
        decode(path)


DARK = {
    "12 bits in 16": ((WIDE >> 4), "[0, 4095]", r"0 to 4095, .* 16 of 256 levels"),
    "10 bits in 16": ((WIDE >> 6), "[0, 1023]", r"0 to 1023, .* 4 of 256 levels"),
    "a narrow window": ((WIDE >> 5) + 30_000, "[30000, 32047]", "30000 to 32047, .* 8 of 256"),
}


@pytest.mark.parametrize("kind", DARK)
def test_values_that_leave_few_grey_levels_are_refused_with_the_range(
    tmp_path: Path, kind: str
) -> None:
    array, remedy, numbers = DARK[kind]
    path = saved(tmp_path / "a.png", array)
    reader = ImageReader()
    reader.read(path)
    with pytest.raises(DataError, match=numbers) as caught:
        reader.require_contrast()
    assert f"set data.grey_range = {remedy}" in str(caught.value)
    low, high = map(float, remedy.strip("[]").split(","))
    assert abs(levels(path, grey_range=(low, high)).astype(int) - RAMP).max() <= 1
    explicit = ImageReader((0, 65_535))  # the other remedy: dark as they are
    explicit.read(path)
    explicit.require_contrast()


def test_one_bright_picture_is_enough_for_the_format_s_range(tmp_path: Path) -> None:
    reader = ImageReader()
    reader.read(saved(tmp_path / "dark.png", WIDE >> 5))
    reader.read(saved(tmp_path / "bright.png", WIDE))
    reader.require_contrast()


def test_dark_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    reader = ImageReader()
    reader.read(write_png(tmp_path / "a.png", np.stack([WIDE >> 4] * 3, -1), 2))
    with pytest.raises(DataError, match="16 bits a channel reach from 0 to 15 of 255"):
        reader.require_contrast()


def test_a_reader_counts_and_names_what_it_did(tmp_path: Path) -> None:
    reader = ImageReader()
    exif = Image.Exif()
    exif[274] = 6
    for number in range(12):
        path = tmp_path / f"{number:03}.png"
        Image.fromarray(COLOUR).save(path, exif=exif)
        reader.read(path, f"cat/{path.name}")
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "flat.png")
    reader.read(tmp_path / "flat.png")
    turned, flat = reader.findings()
    assert turned.count == 12
    assert turned.text == (
        "12 images turned as their EXIF orientation says, as cat/000.png, cat/001.png, cat/002.png "
        "and 9 more"
    )
    assert flat.text == "1 image of one colour all over, as flat.png"
