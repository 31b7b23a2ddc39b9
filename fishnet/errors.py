"""The two errors whose message is meant for the person at the keyboard, and the gist of all others."""


class UserError(Exception):
    """Something outside the program is wrong (a file, a device, a folder): one clear line, exit code 1."""

    exit_code = 1


class UsageError(UserError, ValueError):
    """What was asked for makes no sense (a name, a value, a combination): one clear line, exit code 2."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
