"""The errors a user can mend."""


class InputError(Exception):
    """Wrong settings or input.

    The message is one sentence that names the thing, the place and the next step.
    A job prints it without a traceback and exits with code 2.
    """


class StorageError(InputError, OSError):
    """Storage that refused, or still did not answer when asked again.

    An OSError to what can do without (a heartbeat), and a sentence and exit code 2 to a job.
    """
