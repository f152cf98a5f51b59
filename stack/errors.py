"""The one exception that the local stack raises for a reader to act on."""


class StackError(RuntimeError):
    """The stack cannot do what was asked; the message says why and what to change."""
