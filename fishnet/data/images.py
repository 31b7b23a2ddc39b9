"""Preparation of photographs as square uint8 arrays, the same for reef, folders and `predict`."""

import errno
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from fishnet.data.pixels import to_upright_rgb
from fishnet.errors import UserError
from fishnet.host.files import read_regular_file

MIN_SIDE = 8  # pixels; below this there is nothing to recognize
MAX_PIXELS = 89_478_485  # Pillow's own threshold for suspected decompression bombs; 268 MB once decoded to RGB
MAX_BYTES = 256 * 2**20  # of the file, so that a film among the photographs is not read into memory

KINDS = ("unreadable", "truncated", "tiny", "oversized")

_UNREAD = (  # offset, first bytes and name of formats that (some versions of) Pillow cannot read
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"heic", b"heix", b"heif", b"heim", b"hevc", b"mif1", b"msf1")),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypcrx ", "camera raw"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"IIU\0", "camera raw"),
    (0, b"IIRO", "camera raw"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"<svg", "SVG"),
)
_KNOWN = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (8, b"WEBP", "WebP"),
)
_VECTOR = ("EPS", "WMF")  # Pillow would start another program, or Windows, to draw them


class ImageError(UserError):
    """Failure to use an image file; `kind` is one of `KINDS` and `reason` says what was found."""

    def __init__(self, path: object, kind: str, reason: str):
        reason = " ".join(reason.split())  # one line, whatever a decoder says
        super().__init__(f"{path}: {kind} image: {reason}")
        self.kind, self.reason = kind, reason


def prepare_image(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Prepares an image: its central square, upright, in RGB, with sides of `size` pixels.

    The short side is resized to `size` and the middle of the long side kept, in one LANCZOS pass over exactly the
    central square (`PIL.ImageOps.fit`), so no crop offset is rounded and 32 px made from the 64 px square agrees with
    32 px made from the photograph (mean difference 0.4 of 255 on reef; an integer crop offset would make it 4).
    Orientation, transparency, bit depth and animations: see `pixels.to_upright_rgb`.

    Args:
        image: any Pillow image; it is not changed.
        size: side of the result in pixels.

    Returns:
        [size, size, 3] uint8.

    Raises:
        ValueError: see `pixels.to_upright_rgb`.
    """
    return np.asarray(ImageOps.fit(to_upright_rgb(image), (size, size), method=Image.Resampling.LANCZOS))


def read_image(
    source: str | os.PathLike | bytes, size: int, name: object = None
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Reads, decodes and prepares one image file; files that are too large are refused before decoding.

    Args:
        source: path of an image file in any format that Pillow reads, or its content.
        size: side of the result in pixels.
        name: what to call it in messages; the path by default.

    Returns:
        [size, size, 3] uint8.

    Raises:
        ImageError: the file is unreadable, truncated, tiny (a side under 8 px) or oversized (over `MAX_PIXELS`).
    """
    if isinstance(source, bytes):
        name, data = name or "image", source
    else:
        name, data = name or source, read_bytes(source, name)
    with quiet_pillow():
        return decode_image(data, size, name)


def read_bytes(path: str | os.PathLike, name: object = None) -> bytes:
    """Reads a regular file of at most `MAX_BYTES`; anything else is an `ImageError`."""
    try:
        return read_regular_file(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise ImageError(name or path, "unreadable", "no such file") from error
    except OSError as error:
        kind = "oversized" if error.errno == errno.EFBIG else "unreadable"
        raise ImageError(name or path, kind, error.strerror or str(error)) from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Turns Pillow's decompression-bomb warning into an error and drops its other warnings, for the duration.

    Warning filters belong to the process: enter it once around a thread pool, not in each thread.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_image(data: bytes, size: int, name: object = "image") -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Decodes and prepares a file's content; for use within `quiet_pillow`, in threads too."""
    # Pillow's decoders raise nearly any exception on damaged files (OSError, SyntaxError, struct.error, ...): whatever
    # it is, the file cannot be used, and its name and the reason are passed on.
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if image.format in _VECTOR:
                raise ImageError(name, "unreadable", f"{image.format} is a drawing, not a photograph")
            if width * height > MAX_PIXELS:
                raise ImageError(name, "oversized", f"{width}x{height} pixels; the limit is {MAX_PIXELS:,}")
            if min(width, height) < MIN_SIDE:
                raise ImageError(name, "tiny", f"{width}x{height} pixels; the least is {MIN_SIDE} a side")
            return prepare_image(image, size)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, "oversized", f"the limit is {MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, "unreadable", _unidentified(data)) from error
    except Exception as error:
        text = str(error) or type(error).__name__
        raise ImageError(name, "truncated" if "truncated" in text.lower() else "unreadable", text) from error


def _unidentified(data: bytes) -> str:
    if not data:
        return "empty file"
    for offset, signature, name in _UNREAD:
        if data.startswith(signature, offset):
            return f"{name}, which Pillow does not read here; convert it to JPEG or PNG"
    for offset, signature, name in _KNOWN:
        if data.startswith(signature, offset):
            return f"it begins as {name}, but is damaged or of a kind that Pillow does not read"
    return "not an image"
