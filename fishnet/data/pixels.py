"""Conversion of any pixels to an upright 8-bit RGB image."""

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

_TRANSPOSE = {  # EXIF 2.3, tag 0x0112: how the stored image must be turned to stand upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KEY_SCALES = {"L;2": 85, "L;4": 17}  # PNG states a transparent grey in the file's bits, Pillow gives pixels in 8
_WHITE_16, _WHITE_12 = 2**16 - 1, 2**12 - 1
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the latter two


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to upright 8-bit RGB.

    The orientation tag is obeyed, transparency is laid on white, 12- and 16-bit grey is scaled to 8 bits, of an
    animation the first frame is taken. Colors are Pillow's: color profiles are not applied.

    Args:
        image: any Pillow image; its pixels are loaded, but not changed.

    Raises:
        ValueError: the pixels have no defined range (floating point, signed or 32-bit integers), or it cannot be told
            which of them are transparent.
    """
    raw_mode = _raw_mode(image)
    # Loaded first: Pillow turns a TIFF while loading it, and removes the tag; a PNG may state it after its pixels.
    image.load()
    rgb, orientation = _to_rgb(image, raw_mode), _orientation(image)
    return rgb.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else rgb


def _to_rgb(image: Image.Image, raw_mode: str) -> Image.Image:
    if _has_unknown_range(image):
        raise ValueError(
            "the range of its pixels is not defined (floating point, signed or 32-bit integers); "
            "save it with unsigned 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return Image.fromarray(_scale_to_8_bits(image)).convert("RGB")
    if raw_mode.startswith("RGB;16") and "transparency" in image.info:
        raise ValueError(
            "one of its 16-bit colors is transparent, and Pillow reads 8 bits of it; save it with an alpha channel"
        )
    if raw_mode in _KEY_SCALES and "transparency" in image.info:
        image = image.copy()
        image.info["transparency"] *= _KEY_SCALES[raw_mode]
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # La to RGBA would lose the alpha
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _raw_mode(image: Image.Image) -> str:
    """Raw mode of the file's pixels, as Pillow names it; empty once they are decoded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else None
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _orientation(image: Image.Image) -> int:
    # ImageOps.exif_transpose also rewrites the whole EXIF block, and so fails on photographs whose other tags are
    # malformed; only the orientation matters here.
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of many kinds; whatever it is, the pixels are there
        return 1


def _has_unknown_range(image: Image.Image) -> bool:
    if image.mode == "I":
        return image.format != "PPM"  # Pillow scales a PGM of 9 to 16 bits to 0..65535
    if image.mode.startswith("I;16"):
        return image.format == "FITS"  # signed; its own scale and offset are not applied
    return image.mode == "F" or _SIGNED in _tiff_values(image, _SAMPLE_FORMAT)


def _scale_to_8_bits(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Scales gray pixels of 12 or 16 bits to 8, rounded; a transparent value becomes white."""
    values = np.asarray(image).astype(np.uint32)
    white = _WHITE_12 if 12 in _tiff_values(image, _BITS) else _WHITE_16
    grey = ((255 * np.minimum(values, white) + white // 2) // white).astype(np.uint8)
    if _WHITE_IS_ZERO in _tiff_values(image, _PHOTOMETRIC):  # Pillow inverts up to 8 bits only
        grey = 255 - grey
    if isinstance(key := image.info.get("transparency"), int):
        grey[values == key] = 255
    return grey


def _tiff_values(image: Image.Image, tag: int) -> tuple:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)
