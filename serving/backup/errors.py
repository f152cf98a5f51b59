"""What may go wrong with a backup."""


class BackupError(Exception):
    """A backup cannot be made, or is not what it was when it was made; the message says why."""
