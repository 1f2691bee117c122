"""The one error a user can mend."""


class InputError(Exception):
    """Wrong settings or input.

    The message is one sentence that names the thing, the place and the next step.
    A job prints it without a traceback and exits with code 2.
    """
