"""Keys under which measurements of a program are kept in the user's cache for later sweeps of the same program."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from fishnet.host.machine import Device, device_name, versions
from fishnet.sweep.program.config import ProgramConfig


def program_key(config: ProgramConfig, made_of: Mapping[str, str], devices: Sequence[Device], *more: Any) -> str:
    """Key of a program on devices of a kind, under these versions.

    Args:
        config: what is static.
        made_of: digests of the user's components in it, by "field=name".
        devices: where it runs.
        more: what else matters.
    """
    setting = _digest(device_name(list(devices)), sorted(versions().items()))
    return f"{setting}-{_digest(config, more, *made_of.items())}"


def _digest(*of: Any) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:12]
