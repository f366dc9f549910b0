"""Texts without what identifies a person or a machine: folders of this machine, names of its user and of its host.

Every record goes through :func:`anonymous` where it is written, and so does every message of a failed cell. A path
below the working folder stays, relative to it; of any other path its last name stays. Standard library only.
"""

from __future__ import annotations

import functools
import os
import platform
import pwd
import re
from pathlib import Path
from typing import Any

USER, HOST = "<user>", "<host>"
"""What stands for a name."""

SHARED_NAMES = {"root", "user", "admin", "ubuntu", "debian", "runner", "docker", "nobody", "localhost", "default"}
"""Names that identify nobody."""

LONGEST = 4096
"""Letters of a path."""

SHORTEST_NAME = 3
"""Letters of a name that is looked for: shorter ones stand in words of any text."""

ROOTS = {
    *("home", "root", "Users", "tmp", "var", "usr", "opt", "mnt", "media", "srv", "proc", "run", "etc", "private"),
    *("scratch", "workspace", "nfs", "lib", "lib64", "bin", "sbin", "dev", "sys", "boot", "Volumes"),
}
"""First folders of absolute paths. Nodes of a graph have names such as ``/encoder/MatMul``, which are no paths."""

_BEGIN = re.compile(r"(?:(?<![\w.~/\\-])|(?<=\s-[A-Za-z]))(?:file://)?[.~]?(?=/)")
"""Where a path begins: behind a blank, a bracket, a quote, an option of one letter. One below ``..`` names no folder of
a machine."""

_REST = re.compile(r"""(?:/+[^\s/'"`,;:()<>|\[\]{}=*?]+)*/?""")
"""A path up to what usually ends one in a sentence."""

_SEVERAL_WORDS = re.compile(r"[\s@]")


def anonymous(value: Any) -> Any:
    """A JSON value whose texts, keys included, name no folder outside the working one, no user and no host."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {anonymous(key): anonymous(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        if set(map(type, value)) <= {int, float}:  # a series, which may be long
            return list(value)
        return [anonymous(part) if isinstance(part, (str, dict, list, tuple)) else part for part in value]
    return value


def _text(text: str) -> str:
    if "/" in text:
        for folder in _folders(str(Path.cwd())):
            text = text.replace(f"{folder}/", "")
        for home in _homes():
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        text = _without_folders(text)
    # A text of one word is the name of a thing of the study, and may be called as somebody is.
    for pattern, instead in _names() if _SEVERAL_WORDS.search(text) else ():
        text = pattern.sub(instead, text)
    return text


def _without_folders(text: str) -> str:
    """A text whose paths have their last names only."""
    parts, done = [], 0
    for begin in _BEGIN.finditer(text):
        if begin.start() < done:
            continue
        path = _path(text[begin.start() :], begin[0])
        bare = path.removeprefix("file://")
        if bare.startswith(("./", "~/")) or bare != path or _is_path(bare):
            shown = bare.removeprefix("./") if bare.startswith("./") else bare.rstrip("/").rpartition("/")[2]
            parts += [text[done : begin.start()], shown]
            done = begin.start() + len(path)
    return "".join([*parts, text[done:]])


def _path(text: str, begin: str) -> str:
    """The path that a text begins with: the longest folder that is there, blanks and all, and what follows it."""
    line = text.partition("\n")[0][:LONGEST].removeprefix("file://")
    ends = [match.start() for match in re.finditer("/", line)][1:]
    prefix = len(begin) - len(begin.removeprefix("file://"))
    there = next((end for end in reversed(ends) if _is_folder(line[:end])), len(begin) - prefix)
    rest = _REST.match(line, there)
    return text[: prefix + (rest.end() if rest else there)]


def _is_path(text: str) -> bool:
    """Whether an absolute name is one of a file system rather than of a graph."""
    _, first, *more = text.split("/")
    return first in ROOTS or bool(more and more[0] and Path("/", first, more[0]).exists())


def _is_folder(text: str) -> bool:
    try:
        return Path(text).expanduser().is_dir()
    except (OSError, RuntimeError):  # too long, or the home of nobody
        return False


def _folders(working: str) -> list[str]:
    """Names of the working folder; empty for the root, below which everything lies."""
    return [folder for folder in dict.fromkeys((working, os.environ.get("PWD", working))) if _is_here(folder, working)]


def _is_here(folder: str, working: str) -> bool:
    return len(Path(folder).parts) > 1 and os.path.realpath(folder) == os.path.realpath(working)


@functools.cache
def _homes() -> frozenset[str]:
    homes = {os.environ.get("HOME", ""), _entry("pw_dir")}
    return frozenset(filter(None, {*homes, *(os.path.realpath(home) for home in homes if home)}))


@functools.cache
def _names() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Names of the user and of the host as words, each with what stands for it; the longest first."""
    users = {*(os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")), _entry("pw_name")}
    users |= {Path(home).name for home in _homes()}
    hosts = {os.environ.get("HOSTNAME", ""), platform.node()}
    hosts |= {host.split(".")[0] for host in hosts}
    named = {**dict.fromkeys(hosts, HOST), **dict.fromkeys(users, USER)}
    known = [name for name in named if len(name) >= SHORTEST_NAME and name.lower() not in SHARED_NAMES]
    return tuple(
        (re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"), named[name])
        for name in sorted(known, key=len, reverse=True)
    )


def _entry(field: str) -> str:
    """A field of this user's entry among the system's; empty in a container that has none."""
    try:
        return str(getattr(pwd.getpwuid(os.getuid()), field))
    except KeyError:
        return ""
