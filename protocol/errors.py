"""The errors a user may meet. Every message names the field, the value and the remedy."""


class TutelageError(Exception):
    """Base of all errors raised on purpose. The command line prints the message alone, without a traceback."""

    exit_code = 1


class InvalidInput(TutelageError):
    """A recipe, a data file, a model folder or a run folder is not what it must be. Nothing was started."""

    exit_code = 2


class MalformedEdit(TutelageError):
    """A candidate is not a self-edit. It is journaled with this reason and paid its domain's floor."""


class InnerLoopFailed(TutelageError):
    """A student could not be trained or scored on one self-edit. The others go on; the reason is journaled."""
