"""Download of one file from a list of mirrors, verified and whole or not at all."""

import hashlib
import http.client
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from fishnet.errors import UserError
from fishnet.host.files import write_whole

_CHUNK = 1 << 18  # bytes read at a time
_MOST = 1 << 28  # bytes; a mirror that sends more than this is not sending the file


class DownloadError(UserError):
    """Failure of all mirrors; the message lists each with its reason."""


def fetch(urls: Sequence[str], target: Path, sha256: str, timeout: float = 20.0, limit: float = 600.0) -> None:
    """Downloads a file from the first mirror that gives it, and puts it in place once its checksum is right.

    Args:
        urls: the same file on different mirrors, tried in order; any scheme that `urllib.request` opens.
        target: where it goes; its folder is created. Another process that does the same at once does no harm.
        sha256: checksum of the file in hexadecimal.
        timeout: seconds without an answer after which a mirror is given up.
        limit: seconds in all that one mirror may take.

    Raises:
        DownloadError: every mirror failed or sent something else.
        UserError: the target folder cannot be written to.
    """
    reasons = []
    for url in urls:
        # The two kinds of trouble are kept apart: the network's means another mirror, the disk's the end.
        try:
            data = _get(url, timeout, limit)
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            reasons.append(f"{url}: wrong checksum {found[:16]}... ({len(data):,} bytes), not {sha256[:16]}...")
            continue
        write_whole(target, data, make_folder=True)
        return
    raise DownloadError(f"cannot fetch {target.name} ({'; '.join(reasons)})")


def _get(url: str, timeout: float, limit: float) -> bytes:
    deadline = time.monotonic() + limit
    data = bytearray()
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        while chunk := answer.read(_CHUNK):
            data += chunk
            if len(data) > _MOST:
                raise ValueError(f"more than {_MOST:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {limit:.0f} s")
    return bytes(data)
