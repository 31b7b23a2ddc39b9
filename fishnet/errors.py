"""The two errors whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Something outside the program is wrong (a file, a device, a folder): one clear line, exit code 1."""

    exit_code = 1


class UsageError(UserError, ValueError):
    """What was asked for makes no sense (a name, a value, a combination): one clear line, exit code 2."""

    exit_code = 2
