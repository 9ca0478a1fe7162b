"""Asking the Hugging Face hub without making a user without a network wait, or read its logs.

Without this, every file that is not in the cache costs half a minute of retries and a page of warnings
before the error that matters.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from brdyn.words import first_line as first_line  # of the hub's errors, to callers

PROBE_SECONDS = 3.0
CACHE_HINT = "they are then kept in the Hugging Face cache, HF_HOME"
LOGGERS = ("huggingface_hub", "transformers", "datasets", "timm", "httpx")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@cache
def is_reachable() -> bool:
    """Whether the hub's host answers; assumed so behind a proxy. Asked once a process."""
    from huggingface_hub import constants

    if any(os.environ.get(name) for name in PROXIES):
        return True
    host = urlsplit(constants.ENDPOINT)
    try:
        port = host.port or (80 if host.scheme == "http" else 443)
        socket.create_connection((host.hostname or "", port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def hub_access() -> Iterator[None]:
    """Use the hub inside: quietly, and from the cache alone when there is no network."""
    import datasets
    from huggingface_hub import constants

    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with ExitStack() as stack:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if not is_reachable():
            stack.enter_context(patch.object(constants, "HF_HUB_OFFLINE", True))
            stack.enter_context(patch.object(datasets.config, "HF_HUB_OFFLINE", True))
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def reason(error: BaseException) -> str:
    """Why the hub did not give what was asked, in a few words."""
    from huggingface_hub import errors

    kinds: tuple[tuple[Any, str], ...] = (
        (
            errors.GatedRepoError,
            "the hub asks to accept its terms first: do so on its page, then `hf auth login`",
        ),
        (errors.LocalEntryNotFoundError, "no network, and it is not in the local cache"),
        (errors.OfflineModeIsEnabled, "no network, and it is not in the local cache"),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or it is private"),
        (errors.EntryNotFoundError, "the repository on the hub lacks a file it needs"),
    )
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        for kind, words in kinds:
            if isinstance(link, kind):
                return words
        link = link.__cause__ or link.__context__
    if not is_reachable():
        return "no network, and it is not in the local cache"
    return first_line(error)
