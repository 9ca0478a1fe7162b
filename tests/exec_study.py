"""A study that is a line of code, for processes that import next to nothing."""


def do(study, arguments, folder):
    exec(study)
