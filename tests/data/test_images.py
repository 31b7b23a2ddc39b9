import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fishnet.data import images
from fishnet.data.images import ImageError, prepare_image, read_image
from fishnet.errors import UserError


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(size=(40, 30), seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (31, 31), (9, 200), (500, 8)])
def test_central_square_by_one_lanczos_pass(size):
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    expected = picture(size).resize((16, 16), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    prepared = prepare_image(picture(size), 16)
    assert prepared.shape == (16, 16, 3) and prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared, np.asarray(expected))


def test_equals_short_side_resized_then_cropped_where_no_offset_is_rounded():
    image = picture((96, 64))
    left = image.resize((48, 32), Image.Resampling.LANCZOS).crop((8, 0, 40, 32))
    assert np.abs(prepare_image(image, 32).astype(int) - np.asarray(left)).max() <= 1


def test_an_image_of_the_right_size_is_untouched():
    np.testing.assert_array_equal(prepare_image(picture((16, 16)), 16), np.asarray(picture((16, 16))))


def test_malformed_exif_does_not_lose_the_photograph():
    for block in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        data = encoded(picture(), "JPEG", quality=95, exif=block)
        assert read_image(data, 16).shape == (16, 16, 3)


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (20, 20), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 20, 10))
    prepared = read_image(encoded(image), 20)
    assert (prepared[0] == 255).all() and (prepared[-1] == [200, 0, 0]).all()
    palette = Image.new("P", (20, 20), 0)
    assert (read_image(encoded(palette, transparency=0), 20) == 255).all()


def refused(source, kind, text=None):
    with pytest.raises(ImageError, match=text) as caught:
        read_image(source, 16)
    assert caught.value.kind == kind and isinstance(caught.value, UserError)


def test_faulty_files_are_named_and_classified(tmp_path):
    jpeg = encoded(picture((200, 150)), "JPEG", quality=95)
    refused(jpeg[: len(jpeg) // 2], "truncated")
    refused(encoded(picture((200, 150)))[:20_000], "truncated")
    refused(b"", "unreadable", "empty file")
    refused(b"no image at all", "unreadable", "not an image")
    refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n", "unreadable", "drawing")
    refused(encoded(picture((7, 100))), "tiny", "7x100")
    assert read_image(encoded(picture((8, 100))), 16).shape == (16, 16, 3)
    path = tmp_path / "broken.png"
    path.write_bytes(b"x")
    refused(path, "unreadable", "broken.png")
    refused(tmp_path / "absent.png", "unreadable", "no such file")
    refused(tmp_path, "unreadable", "a folder, not a file")


def test_size_is_checked_before_decoding(monkeypatch, tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for side in (10_000, 60_000):  # over the limit for a warning, and over the one for an error of Pillow's own
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            refused(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "oversized", "limit")
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000)
    monkeypatch.setattr(images, "prepare_image", None)  # would fail if it came to decoding
    refused(encoded(picture((40, 30))), "oversized", "40x30")
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    (tmp_path / "film.mp4").write_bytes(bytes(11))
    refused(tmp_path / "film.mp4", "oversized", "11 bytes")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "unreadable", "not a regular file")
