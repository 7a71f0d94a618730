"""Errors that are the user's to mend."""


class UserError(ValueError):
    """A mistake in configuration or data; commands print its message without a stack trace."""
