"""Errors whose message is meant for the user, and the first line of any error."""


class UserError(Exception):
    """Error outside the program (a file, a device, a folder); printed as one line, exit code 1."""

    exit_code = 1


class UsageError(UserError, ValueError):
    """Invalid request (a name, a value, a combination); printed as one line, exit code 2."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """First line of an error's message, or its type where the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
