"""Asking the Hugging Face hub without making a user without a network wait, or read its logs.

Without this, every file that is not in the cache costs half a minute of retries and a page of warnings
before the error that matters.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from textwrap import shorten
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

PROBE_SECONDS = 3.0
CACHE_HINT = "they are then kept in the Hugging Face cache, HF_HOME"
LOGGERS = ("huggingface_hub", "transformers", "datasets", "timm", "httpx")
LONGEST_LINE = 160
ADDRESS = re.compile(r"(?: object)? at 0x[0-9a-fA-F]+")
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


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut after a word and without addresses in memory, or its kind."""
    text = str(error).strip().splitlines()
    line = ADDRESS.sub("", text[0] if text else type(error).__name__).rstrip(".")
    if len(line) <= LONGEST_LINE:
        return line
    return (
        shorten(line, LONGEST_LINE, placeholder=" …")
        if " " in line[:LONGEST_LINE]
        else line[: LONGEST_LINE - 1] + "…"
    )


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
