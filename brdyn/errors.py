"""The ways a brdyn call can go wrong; the command line turns them into exit codes."""


class BrdynError(Exception):
    """A run that could not be completed (exit code 1): unreadable data, missing weights, a non-finite layer.

    >>> issubclass(brdyn.UsageError, brdyn.BrdynError)  # `except brdyn.BrdynError` catches both
    True
    """


class DivergedError(BrdynError):
    """A training whose loss is no number any more.

    >>> issubclass(brdyn.errors.DivergedError, brdyn.BrdynError)
    True
    """


class UsageError(BrdynError, ValueError):
    """A request that cannot be served as asked (exit code 2): a wrong name, a value out of range.

    >>> brdyn.segment(np.eye(3), k=5)
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: k=5 phases need at least 5 layers; this model has 3
    """


def exit_code(error: BrdynError) -> int:
    """What the command line ends with."""
    return 2 if isinstance(error, UsageError) else 1
