"""Where settings come from: files and variables, found, and read by dynaconf one at a time.

Rule: what is raised here never repeats a value, which may be a secret.

Merging is left to `config`: dynaconf 3.3 merges either nothing or lists as well
(`tests/settings/test_settings_files.py` shows it).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from dynaconf import Dynaconf
from dynaconf.loaders.base import BaseLoader

__all__ = [
    "SETTINGS_FILE",
    "Tables",
    "Unreadable",
    "cast",
    "files_beside",
    "found_file",
    "parsed",
    "variables",
]

Tables: TypeAlias = dict[str, Any]

SETTINGS_FILE: Final = "settings.toml"
_PREFIX: Final = "LAYERCACHE_"
_NOT_SETTINGS: Final = (
    "LAYERCACHE_ENV",
    "LAYERCACHE_SETTINGS",
    "LAYERCACHE_ADMIN_URL",  # these two are what the commands ask a service with
    "LAYERCACHE_ADMIN_TOKEN",
)
_OF_TESTS: Final = "LAYERCACHE_TEST_"
_MERGE_TOKENS: Final = re.compile(r"@(merge|merge_unique|insert|del|reset)\b")


class Unreadable(ValueError):
    """A source that is not there or cannot be read. `place` says which; the message says why."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


# -- files


def found_file(source: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: `source`, else what LAYERCACHE_SETTINGS names, else the nearest, else None.

    Raises `Unreadable` when the file asked for does not exist.
    """
    named = environ.get("LAYERCACHE_SETTINGS") or None if source is None else source
    if named is None:
        return _nearest_file()
    if not _is_file(named):
        asked = "the file asked for" if source is not None else "the file that LAYERCACHE_SETTINGS names"
        raise Unreadable(str(named), f"{asked} does not exist")
    return Path(named)


def _nearest_file() -> Path | None:
    try:
        folder = Path.cwd()
    except OSError:
        raise Unreadable(SETTINGS_FILE, "the working folder, to look for it in, is gone") from None
    return next((file for at in (folder, *folder.parents) if _is_file(file := at / SETTINGS_FILE)), None)


def _is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises for a folder that may not be looked into)


def files_beside(file: Path) -> list[Path]:
    """Return what is read after `file`, weakest first: its local variant and `.secrets.toml`."""
    names = (f"{file.stem}.local{file.suffix}", ".secrets.toml")
    return [beside for name in names if _is_file(beside := file.with_name(name))]


def parsed(file: Path) -> Tables:
    """Return what a TOML file holds, with dynaconf's @tokens resolved, or raise `Unreadable`."""
    reader = _blank()
    # "_envless", as the variable ENVIRONMENTS_FOR_DYNACONF is stronger than what _blank says
    loader = BaseLoader(reader, "_envless", "toml", (file.name,), _content, tomllib.loads, {"mode": "rb"})
    try:
        file.open("rb").close()  # of a file that it cannot open, dynaconf only warns
        loader.load([str(file)], silent=False)
        content: Tables = reader.as_dict()[_CONTENT]
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(file.name, f"is no TOML: {error}") from None
    except UnicodeDecodeError:
        raise Unreadable(file.name, "is no UTF-8 text") from None
    except OSError as error:
        raise Unreadable(file.name, f"cannot be read: {error.strerror}") from None
    except Exception as error:  # a @token may read files, run a template…
        raise Unreadable(file.name, f"holds {_UNRESOLVED} ({type(error).__name__})") from None
    return content


_CONTENT: Final = "CONTENT"


def _content(file: BinaryIO) -> Tables:
    # under one key, as dynaconf compares those at the top without case: of [Production] and [production] one was lost
    return {_CONTENT: tomllib.load(file)}


_UNRESOLVED: Final = "a @token that dynaconf cannot resolve"


# -- variables


def variables(environ: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (variable, path of the setting) for each `LAYERCACHE_A__B__C`."""
    for name in sorted(environ):
        upper = name.upper()
        if upper.startswith(_PREFIX) and upper not in _NOT_SETTINGS and not upper.startswith(_OF_TESTS):
            yield name, name[len(_PREFIX) :].split("__")


def cast(variable: str, text: str) -> Any:
    """Return the value of a variable as dynaconf reads it: as TOML where it is TOML, @tokens resolved.

    Raises `Unreadable` when a token cannot be resolved.
    """
    if _MERGE_TOKENS.match(text):
        raise Unreadable(variable, "@merge and its kin mean nothing here: tables merge, lists replace")
    reader = _blank()
    try:
        reader.set("VALUE", text.lower() if text in {"True", "False"} else text, tomlfy=True)
        return reader.as_dict()["VALUE"]
    except Exception as error:  # a @token may read files, run a template…
        raise Unreadable(variable, f"holds {_UNRESOLVED} ({type(error).__name__})") from None


def _blank() -> Dynaconf:
    """A Dynaconf that has read nothing: no file, no variable."""
    return Dynaconf(environments=False, settings_files=[], loaders=[], core_loaders=[], load_dotenv=False)
