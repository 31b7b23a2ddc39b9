"""From any photograph to the square uint8 array that the models see: one way, for reef, folders and `predict`."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from fishnet.errors import UserError

MIN_SIDE = 8  # pixels; below this there is nothing to recognise
MAX_PIXELS = 89_478_485  # Pillow's own threshold for suspected decompression bombs; 268 MB once decoded to RGB
MAX_BYTES = 256 * 2**20  # of the file, so that a film among the photographs is not read into memory

KINDS = ("unreadable", "truncated", "tiny", "oversized")

_VECTOR = ("EPS", "WMF")  # Pillow would start another program, or Windows, to draw them

_TRANSPOSE = {  # EXIF 2.3, tag 0x0112: how the stored image must be turned to stand upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(UserError):
    """One image file cannot be used; `kind` is one of `KINDS` and `reason` says what was found."""

    def __init__(self, path: object, kind: str, reason: str):
        reason = " ".join(reason.split())  # one line, whatever a decoder says
        super().__init__(f"{path}: {kind} image: {reason}")
        self.kind, self.reason = kind, reason


def prepare_image(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The central square of an image, upright, in RGB, `size` pixels a side.

    The short side is resized to `size` and the middle of the long side kept, in one LANCZOS pass over exactly the
    central square (`PIL.ImageOps.fit`), so no crop offset is rounded and 32 px made from the 64 px square agrees with
    32 px made from the photograph (mean difference 0.4 of 255 on reef; an integer crop offset would make it 4).
    The EXIF orientation is honoured, transparency is laid on white, 16-bit grey is scaled to 8, of an animation the
    first frame is taken; colour profiles are not applied.

    Args:
        image: any Pillow image; it is not changed.
        size: side of the result in pixels.

    Returns:
        [size, size, 3] uint8.

    Raises:
        ValueError: the pixels have no defined range (32-bit integer or float).
    """
    return np.asarray(ImageOps.fit(_rgb(_upright(image)), (size, size), method=Image.Resampling.LANCZOS))


def read_image(
    source: str | os.PathLike | bytes, size: int, name: object = None
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Decodes one image file and prepares it; everything doubtful is refused before it is decoded.

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
    """The content of a regular file of at most `MAX_BYTES`; anything else is an `ImageError`."""
    name, path = name or path, Path(path)
    try:
        if not path.is_file():  # a pipe or device would block for ever
            raise ImageError(name, "unreadable", "not a regular file" if path.exists() else "no such file")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(name, "oversized", f"{path.stat().st_size:,} bytes; the limit is {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(name, "unreadable", error.strerror or str(error)) from error


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
    """`read_image` of a file's content, for use within `quiet_pillow`, in threads too."""
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
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1"):
        return "HEIF, which Pillow does not read; convert it to JPEG"
    return "not an image" if data else "empty file"


def _upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose also rewrites the whole EXIF block and so fails on photographs whose other tags are
    # malformed; only the orientation matters here.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        orientation = 1
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips 16 bits instead of scaling them
        return Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}) have no defined range; save it as 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
