"""Every kind of image file becomes the RGB that a viewer shows, or is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rdmd.data.readers.images import UnreadableError, decode


def saved(image: Image.Image, format: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def png_header(width: int, height: int) -> io.BytesIO:
    """The start of a PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth 12x20 image whose corners all differ."""
    y, x = np.mgrid[:12, :20]
    return np.stack([x * 12, y * 20, 255 - x * 6 - y * 6], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(photo, format):
    assert np.array_equal(decode(saved(Image.fromarray(photo), format)), photo)


def test_avif_is_read(photo):
    avif = decode(saved(Image.fromarray(photo), "AVIF", quality=100, subsampling="4:4:4"))
    # Two roundings, to YCbCr and back, and quantisation at quality 100 move a channel by up to three levels.
    assert np.abs(avif.astype(int) - photo).max() <= 3


def test_webp_and_jpeg_come_back_nearly(photo):
    assert np.array_equal(decode(saved(Image.fromarray(photo), "WEBP", lossless=True)), photo)
    jpeg = decode(saved(Image.fromarray(photo), "JPEG", quality=95, subsampling=0))
    # Quantisation at quality 95 moves a smooth gradient by a few levels.
    assert np.abs(jpeg.astype(int) - photo).max() <= 6


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(photo, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(saved(Image.fromarray(photo), "PNG", exif=exif)), turned(photo))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = decode(saved(Image.fromarray(values), format))
    # linspace(0, 65535, 256) steps by 257, so the levels are exactly 0..255.
    assert np.array_equal(decoded, np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2))


def test_big_endian_16_bit_tiff_and_a_turned_one():
    values = (np.arange(8 * 10) * 257).astype(">u2").reshape(8, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(saved(Image.fromarray(values), "TIFF", exif=exif))
    assert np.array_equal(decoded[..., 0], np.rot90(np.arange(80).reshape(8, 10), -1))


def test_16_bit_grey_with_a_transparent_value_is_laid_on_white():
    values = np.full((8, 8), 257 * 100, np.uint16)
    values[0] = 257 * 7
    decoded = decode(saved(Image.fromarray(values), "PNG", transparency=257 * 7))
    assert (decoded[0] == 255).all()
    assert (decoded[1:] == 100).all()


def test_12_bits_in_16_are_refused_and_black_is_not():
    values = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    with pytest.raises(UnreadableError, match="end at 4095"):
        decode(saved(Image.fromarray(values), "PNG"))
    with pytest.raises(UnreadableError, match="end at 255, as of 8 or 12 bits"):
        decode(saved(Image.fromarray(values // 16), "PNG"))
    assert (decode(saved(Image.fromarray(np.zeros_like(values)), "PNG")) == 0).all()


def test_cmyk():
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:4] = (255, 0, 0, 0)
    inks[4:] = (0, 0, 0, 255)
    decoded = decode(saved(Image.fromarray(inks, "CMYK"), "TIFF"))
    assert (decoded[:4] == (0, 255, 255)).all()
    assert (decoded[4:] == 0).all()


def test_alpha_is_composited_on_white():
    colour = np.zeros((8, 8, 4), np.uint8)
    colour[:2] = (200, 10, 30, 255)
    colour[2:4] = (200, 10, 30, 0)
    colour[4:] = (0, 0, 0, 51)
    decoded = decode(saved(Image.fromarray(colour), "PNG"))
    assert (decoded[:2] == (200, 10, 30)).all()
    assert (decoded[2:4] == 255).all()
    # A fifth of black on white: 255 * (1 - 51 / 255).
    assert (decoded[4:] == 204).all()


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 10, 120, 240])
    image.paste(0, (0, 0, 8, 2))
    decoded = decode(saved(image, "PNG", transparency=0))
    assert (decoded[:2] == 255).all()
    assert (decoded[2:] == (10, 120, 240)).all()


def test_grey_and_one_bit():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(decode(saved(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, 2))
    bits = np.indices((8, 8)).sum(0) % 2 == 1
    assert np.array_equal(decode(saved(Image.fromarray(bits), "PNG"))[..., 1], bits * 255)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    file = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(file) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (io.BytesIO(b""), "not an image in a known format"),
        (io.BytesIO(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS pointer"),
        (io.BytesIO(saved(NOISE, "PNG").getvalue()[:900]), "truncated"),
        (io.BytesIO(saved(NOISE, "JPEG").getvalue()[:900]), "truncated"),
        (saved(Image.new("RGB", (7, 200)), "PNG"), "7x200 pixels; a side needs at least 8"),
        (saved(Image.new("RGB", (1, 1)), "PNG"), "1x1 pixels"),
        (saved(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "no known white"),
        (saved(Image.fromarray(np.ones((8, 8), np.int32)), "TIFF"), "no known white"),
        # Between one and two times Pillow's limit it only warns; above that it raises. Neither is unpacked.
        (png_header(10_000, 10_000), "10000x10000 is more than 89478485 pixels"),
        (png_header(60_000, 60_000), "more than 89478485 pixels"),
    ],
)
def test_what_is_no_usable_image_is_refused_with_a_reason(file, reason):
    with pytest.raises(UnreadableError, match=reason):
        decode(file)


def test_reasons_are_the_same_on_every_run():
    reasons = set()
    for _ in range(3):
        with pytest.raises(UnreadableError) as caught:
            decode(io.BytesIO(b"this is text" * 20))
        reasons.add(str(caught.value))
    assert len(reasons) == 1
