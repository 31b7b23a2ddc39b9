"""Every kind of pixels that a file may hold against NumPy's arithmetic on the values that were written into it."""

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, features

from fishnet.data.images import ImageError, read_image
from fishnet.data.pixels import to_upright_rgb

needs_pillow_13 = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="refused by older versions")

SIDE = 16
GREY = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 37) % 251  # [16, 16] distinct neighbours, no symmetry
COLOR = np.stack([GREY, (GREY * 3 + 11) % 256, (GREY * 7 + 5) % 256], -1)  # [16, 16, 3]
BLOCKS = np.kron(np.arange(12).reshape(3, 4) * 20 + 15, np.ones((16, 16), int))  # [48, 64], no symmetry either

# EXIF 2.3 states where the first row and column of the stored image belong; these turn stored into upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a),
}


def packed(values: np.ndarray, bits: int, order: str) -> list[bytes]:
    """The rows of values [h, w * c] in `bits` each, the first value in the highest bits."""
    if bits % 8 == 0:
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in values]
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.ravel()).tobytes() for row in spread]


def png(values: np.ndarray, bits: int, color_type: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of values [h, w] or [h, w, c], as they are to lie in the file; more chunks before or after the pixels."""
    height, width = values.shape[:2]
    rows = packed(values.reshape(height, -1), bits, ">")
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(values: np.ndarray, bits: int, photometric: int, order: str = "<", **more: tuple[int, ...]) -> bytes:
    """An uncompressed TIFF of values [h, w] or [h, w, c]; `more` tags by their numbers, as t338=(1,)."""
    height, width = values.shape[:2]
    channels = values[0, 0].size
    data = b"".join(packed(values.reshape(height, -1), bits, order))
    tags = {256: (width,), 257: (height,), 258: (bits,) * channels, 259: (1,), 262: (photometric,), 273: (0,)}
    tags |= {277: (channels,), 278: (height,), 279: (len(data),)} | {int(k[1:]): v for k, v in more.items()}
    start, extra = 8 + 2 + 12 * len(tags) + 4, b""
    tags[273] = (start + sum(2 * len(v) for v in tags.values() if len(v) > 2),)
    entries = b""
    for tag, numbers in sorted(tags.items()):
        kind, size = ("I", 4) if max(numbers) > 65535 or tag == 273 else ("H", 2)
        body = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(body) > 4:
            body, extra = struct.pack(f"{order}I", start + len(extra)), extra + body
        entries += struct.pack(f"{order}HHI", tag, 4 if size == 4 else 3, len(numbers)) + body.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra + data


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> np.ndarray:
    return read_image(data, SIDE).astype(int)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colors [h, w, 3 or 1] over white, alpha [h, w] in 0..255."""
    share = alpha[..., None] / 255
    return np.broadcast_to(share * rgb + (1 - share) * 255, (*alpha.shape, 3))


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, -1)


ORIENTED = {
    "TIFF": {},
    "TIFF compressed": {"compression": "tiff_lzw"},
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "MPO": {"quality": 100, "subsampling": 0, "save_all": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("tag", UPRIGHT)
@pytest.mark.parametrize("kind", ORIENTED)
def test_every_orientation_in_every_format_is_turned_once(kind: str, tag: int) -> None:
    if kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        pytest.skip(f"this Pillow has no {kind}")
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = grey3(BLOCKS).astype(np.uint8)
    data = encoded(Image.fromarray(stored), kind.split()[0], exif=exif, **ORIENTED[kind])
    got = to_upright_rgb(Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(np.asarray(got, int), UPRIGHT[tag](stored), atol=6)  # lossy formats round
    decoded = Image.open(io.BytesIO(data))
    decoded.load()  # which turns a TIFF
    np.testing.assert_array_equal(to_upright_rgb(decoded), got)


@pytest.mark.parametrize("tag", UPRIGHT)
def test_an_orientation_after_the_pixels_of_a_png_counts(tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    block = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    xmp = f'<x tiff:Orientation="{tag}"/>'.encode()
    for late in (block, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)):
        got = to_upright_rgb(Image.open(io.BytesIO(png(BLOCKS, 8, 0, after=late))))
        np.testing.assert_array_equal(got, grey3(UPRIGHT[tag](BLOCKS)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tag", UPRIGHT)
def test_a_sixteen_bit_tiff_is_turned_and_scaled(tag: int, order: str) -> None:
    data = tiff(BLOCKS * 257, 16, 1, order, t274=(tag,))
    np.testing.assert_array_equal(to_upright_rgb(Image.open(io.BytesIO(data))), grey3(UPRIGHT[tag](BLOCKS)))


WIDE = GREY * 257 + (GREY % 5) * 40  # [16, 16] in 0..65535, between the 8-bit levels too


def pgm(values: np.ndarray, most: int, plain: bool = False) -> bytes:
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes()
    return b"P%d %d %d %d\n" % (2 if plain else 5, *values.shape[::-1], most) + body


SIXTEEN_BITS = {
    "PNG": png(WIDE, 16, 0),
    "TIFF little endian": tiff(WIDE, 16, 1, "<"),
    "TIFF big endian": tiff(WIDE, 16, 1, ">"),
    "TIFF, white is 0": tiff(65535 - WIDE, 16, 0, "<"),
    "PGM": pgm(WIDE, 65535),
    "PGM in text": pgm(WIDE, 65535, plain=True),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_sixteen_bit_grey_is_scaled_and_rounded(kind: str) -> None:
    np.testing.assert_array_equal(read(SIXTEEN_BITS[kind]), grey3(np.round(WIDE / 257)))


def test_twelve_bits_are_scaled_by_their_own_white() -> None:
    values = GREY * 16 + GREY % 16  # [16, 16] in 0..4095
    np.testing.assert_allclose(read(tiff(values, 12, 1)), grey3(values / 4095 * 255), atol=0.51)
    np.testing.assert_allclose(read(pgm(values, 4095)), grey3(values / 4095 * 255), atol=0.51)


@pytest.mark.parametrize("kind", ["PNG", "TIFF <", "TIFF >", "PPM"])
def test_sixteen_bit_color_is_scaled(kind: str) -> None:
    wide = COLOR * 257
    data = png(wide, 16, 2) if kind == "PNG" else pgm(wide[..., 0], 65535)
    if kind.startswith("TIFF"):
        data = tiff(wide, 16, 2, kind[-1])
    if kind == "PPM":
        data = b"P6 %d %d 65535\n" % (SIDE, SIDE) + wide.astype(">u2").tobytes()
    np.testing.assert_array_equal(read(data), COLOR)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_a_png_becomes_white(bits: int) -> None:
    values = GREY if bits == 8 else GREY * 257 if bits == 16 else GREY % 2**bits
    for key in (0, 1, int(values.max()), int(values[3, 5])):
        expected = np.where(values == key, 255, np.round(values * 255 / (2**bits - 1)))
        data = png(values, bits, 0, chunk(b"tRNS", struct.pack(">H", key)))
        np.testing.assert_array_equal(read(data), grey3(expected), err_msg=f"{bits} bits, key {key}")


def test_a_transparent_color_of_a_png_becomes_white() -> None:
    key = COLOR[3, 5]
    expected = np.where((key == COLOR).all(-1, keepdims=True), 255, COLOR)
    np.testing.assert_array_equal(read(png(COLOR, 8, 2, chunk(b"tRNS", struct.pack(">3H", *key)))), expected)
    # In 16 bits Pillow keeps the upper 8 of the pixels only: which are transparent cannot be told.
    with pytest.raises(ImageError, match=r"16-bit colors is transparent.*alpha channel"):
        read(png(COLOR * 257, 16, 2, chunk(b"tRNS", struct.pack(">3H", *(key * 257)))))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [b"\0", b"\xff\0", b"\x40\x80"])
def test_a_palette_with_transparency_is_laid_on_white(bits: int, alphas: bytes) -> None:
    values = GREY % 2**bits
    table = np.random.RandomState(0).randint(0, 256, (2**bits, 3))
    alpha = np.full(2**bits, 255)
    alpha[: len(alphas)] = list(alphas)
    data = png(values, bits, 3, chunk(b"PLTE", table.astype(np.uint8).tobytes()) + chunk(b"tRNS", alphas))
    np.testing.assert_allclose(read(data), on_white(table[values], alpha[values]), atol=1)


ALPHA = (GREY * 5 + 3) % 256
MULTIPLIED = np.round(COLOR * ALPHA[..., None] / 255).astype(int)
WITH_ALPHA = {
    "PNG grey": (png(np.stack([GREY, ALPHA], -1), 8, 4), on_white(GREY[..., None], ALPHA)),
    "PNG grey, 16 bits": (png(np.stack([GREY, ALPHA], -1) * 257, 16, 4), on_white(GREY[..., None], ALPHA)),
    "PNG color": (png(np.dstack([COLOR, ALPHA]), 8, 6), on_white(COLOR, ALPHA)),
    "PNG color, 16 bits": (png(np.dstack([COLOR, ALPHA]) * 257, 16, 6), on_white(COLOR, ALPHA)),
    "TIFF grey": (tiff(np.stack([GREY, ALPHA], -1), 8, 1, t338=(2,)), on_white(GREY[..., None], ALPHA)),
    "TIFF color": (tiff(np.dstack([COLOR, ALPHA]), 8, 2, t338=(2,)), on_white(COLOR, ALPHA)),
    "TIFF color, 16 bits": (tiff(np.dstack([COLOR, ALPHA]) * 257, 16, 2, t338=(2,)), on_white(COLOR, ALPHA)),
    "TIFF color, multiplied": (tiff(np.dstack([MULTIPLIED, ALPHA]), 8, 2, t338=(1,)), on_white(COLOR, ALPHA)),
}


@pytest.mark.parametrize("kind", WITH_ALPHA)
def test_an_alpha_channel_is_laid_on_white(kind: str) -> None:
    data, expected = WITH_ALPHA[kind]
    np.testing.assert_allclose(read(data), expected, atol=1 if "multiplied" not in kind else 2)


@needs_pillow_13
def test_multiplied_grey_is_laid_on_white() -> None:
    multiplied = np.round(GREY * ALPHA / 255).astype(int)
    data = tiff(np.stack([multiplied, ALPHA], -1), 8, 1, t338=(1,))
    np.testing.assert_allclose(read(data), grey3(multiplied + 255 - ALPHA), atol=2)  # over white, from the definition


def test_a_palette_with_an_alpha_channel_is_laid_on_white() -> None:
    image = Image.merge("PA", [Image.fromarray(channel.astype(np.uint8)) for channel in (GREY, ALPHA)])
    table = np.random.RandomState(1).randint(0, 256, (256, 3))
    image.putpalette(table.astype(np.uint8).tobytes())
    np.testing.assert_allclose(np.asarray(to_upright_rgb(image), int), on_white(table[GREY], ALPHA), atol=1)


def test_ink_is_taken_from_white_paper() -> None:
    black = (GREY * 5) % 256
    ink = np.dstack([COLOR, black])
    expected = (255 - COLOR) * (255 - black[..., None]) / 255
    np.testing.assert_allclose(read(tiff(ink, 8, 5)), expected, atol=1)
    np.testing.assert_allclose(read(tiff(ink * 257, 16, 5)), expected, atol=1)
    flat = np.broadcast_to([10, 200, 90, 60], (SIDE, SIDE, 4)).astype(np.uint8)
    adobe = encoded(Image.fromarray(flat, "CMYK"), "JPEG", quality=100)  # Adobe's JPEG stores ink inverted
    assert b"Adobe" in adobe
    np.testing.assert_allclose(read(adobe), np.broadcast_to([187, 42, 126], (SIDE, SIDE, 3)), atol=3)


@needs_pillow_13
def test_luma_and_chroma_follow_jfif() -> None:
    y, cb, cr = 60 + COLOR[..., 0] // 3, 118 + COLOR[..., 1] // 12, 118 + COLOR[..., 2] // 12
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    expected = np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], -1)
    np.testing.assert_allclose(read(tiff(np.stack([y, cb, cr], -1), 8, 6, t530=(1, 1))), expected, atol=1.5)


@pytest.mark.skipif(not features.check("littlecms2"), reason="this Pillow has no color management")
def test_lab_is_converted() -> None:
    for lab, rgb in {  # lightness 0..255, a and b as signed bytes; sRGB of these from the CIE's formulae, D50
        (255, 0, 0): (255, 255, 255),
        (0, 0, 0): (0, 0, 0),
        (137, 0, 0): (128, 128, 128),
        (138, 81, 70): (255, 0, 0),
    }.items():
        data = tiff(np.broadcast_to(np.array(lab) % 256, (SIDE, SIDE, 3)), 8, 8)
        np.testing.assert_allclose(read(data), np.broadcast_to(rgb, (SIDE, SIDE, 3)), atol=6)


def test_hue_saturation_and_value() -> None:
    hsv = np.broadcast_to(np.array([85, 255, 200], np.uint8), (SIDE, SIDE, 3))  # a third of the circle: green
    np.testing.assert_allclose(
        to_upright_rgb(Image.fromarray(hsv, "HSV")), np.broadcast_to([0, 200, 0], hsv.shape), atol=1
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits_are_spread_and_white_may_be_zero(bits: int) -> None:
    values = GREY % 2**bits
    expected = grey3(np.round(values * 255 / (2**bits - 1)))
    for data in (png(values, bits, 0), tiff(values, bits, 1), tiff(2**bits - 1 - values, bits, 0)):
        np.testing.assert_array_equal(read(data), expected)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "AVIF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    if kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        pytest.skip(f"this Pillow has no {kind}")
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read(data), np.broadcast_to([255, 0, 0], (SIDE, SIDE, 3)), atol=3)


FLOATS = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
UNKNOWN_RANGE = {
    "float TIFF": encoded(Image.fromarray(FLOATS), "TIFF"),
    "float PFM": encoded(Image.fromarray(FLOATS), "PPM"),
    "32-bit TIFF": tiff(WIDE * 65537, 32, 1),
    "signed 16-bit TIFF": tiff(WIDE, 16, 1, t339=(2,)),
    "signed 8-bit TIFF": tiff(GREY, 8, 1, t339=(2,)),
    "FITS": b"".join(
        line.ljust(80)
        for line in (b"SIMPLE  = T", b"BITPIX  = 16", b"NAXIS   = 2", b"NAXIS1  = 16", b"NAXIS2  = 16", b"END")
    ).ljust(2880)
    + WIDE.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", UNKNOWN_RANGE)
def test_pixels_without_a_defined_range_are_refused_with_advice_that_helps(kind: str) -> None:
    with pytest.raises(ImageError, match=r"range of its pixels is not defined.*unsigned 8 or 16 bits") as caught:
        read(UNKNOWN_RANGE[kind])
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tiff(GREY, 8, 1)[:40], "begins as TIFF"),
        (tiff(np.dstack([COLOR] * 3), 8, 2), r"begins as TIFF.*of a kind that Pillow does not read"),
        (b"\xff\xd8\xff\xe0", "begins as JPEG, but is damaged"),
        (b"\x89PNG\r\n\x1a\n", "begins as PNG"),
        (b"GIF89a", "begins as GIF"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIF.*convert it to JPEG or PNG"),
        (b"\xff\x0a" + bytes(50), "JPEG XL.*convert"),
        (b"\0\0\0\x18ftypcrx " + bytes(50), "camera raw.*convert"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG.*convert"),
        (b"some text", "not an image"),
        (b"", "empty file"),
    ],
)
def test_what_pillow_does_not_know_is_called_by_its_name(data: bytes, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        read(data)
