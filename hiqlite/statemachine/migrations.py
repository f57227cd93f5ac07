"""Migrations as values: read from a folder, a package or a mapping, and compared with what a database already has.

A migration is a file `<n>_<name>.sql`; ids count from 1 without gaps. Its hash is the SHA-256 of its text in UTF-8 with
line endings normalised to LF, so that a checkout on another system is the same migration. A first line
`-- hiqlite: foreign_keys=off` asks that foreign keys are off while it runs and checked before it commits.
Must not know connections or Raft. Invariant: what `validate` returns continues the applied ids without a gap, and every
applied migration that was also given has the name and the hash it was applied with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from hiqlite import observe
from hiqlite.errors import MigrationError, UsageError

FILE_NAME: Final = re.compile(r"(?P<id>[0-9]{1,18})_(?P<name>.+)\.sql")
PACKAGE_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
FOREIGN_KEYS_OFF: Final = re.compile(r"--\s*hiqlite\s*:\s*foreign_keys\s*=\s*off\s*", re.IGNORECASE)
log = observe.logger("migrations")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `text` has its line endings normalised; that is what is applied."""

    id: int
    name: str  # of the file: `<n>_<name>.sql`
    text: str
    sha256_hex: str
    foreign_keys_off: bool


def load(source: str | Path | Mapping[str, str]) -> list[Migration]:
    """The migrations of a source, ascending.

    Args:
        source: a folder, the name of an installed package whose folder holds the files, or a mapping of file names to
            texts. In folders and packages, files that do not end in `.sql` are passed over.

    Raises:
        UsageError: there is no such source, or it is empty.
        MigrationError: a name does not fit, ids repeat or leave a gap, a text is not UTF-8 or holds NUL.
    """
    texts = _texts_of(source)
    if not texts:
        raise UsageError(f"no migrations in {_shown(source)}", hint="files are named <n>_<name>.sql, counted from 1")
    found = sorted((migration(name, text) for name, text in texts.items()), key=lambda each: (each.id, each.name))
    for wanted, each in enumerate(found, 1):
        if each.id == wanted:
            continue
        if wanted > 1 and each.id == found[wanted - 2].id:
            raise MigrationError(f"{each.name} and {found[wanted - 2].name} have the same id {each.id}")
        raise MigrationError(f"{each.name}: ids count from 1 without gaps, {wanted} is missing")
    return found


def migration(name: str, text: str) -> Migration:
    """One migration from its file name and text."""
    fits = FILE_NAME.fullmatch(name) if isinstance(name, str) else None
    if fits is None or int(fits["id"]) < 1:
        raise MigrationError(f"{name!r} is not the name of a migration", hint="name it <n>_<name>.sql, counted from 1")
    if not isinstance(text, str):
        raise MigrationError(f"{name}: the text is {type(text).__name__}, it must be str")
    normalised = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in normalised:
        raise MigrationError(f"{name}: the text holds a NUL character")
    try:
        digest = hashlib.sha256(normalised.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise MigrationError(f"{name}: the text holds a lone surrogate, which UTF-8 cannot hold") from error
    first_line = normalised.split("\n", 1)[0]
    return Migration(int(fits["id"]), name, normalised, digest, FOREIGN_KEYS_OFF.fullmatch(first_line) is not None)


def validate(migrations: Sequence[Migration], applied_rows: Iterable[tuple[int, str, str]]) -> list[Migration]:
    """The migrations that are still to be applied, ascending.

    Args:
        migrations: from `load`.
        applied_rows: (id, name, hash) of the table `_migrations`.

    Raises:
        MigrationError: an applied one has another name or hash than the given one, or the applied ids leave a gap. The
            message names the file, both hashes, and how the two lists of names differ.
    """
    applied = sorted((number, name, digest) for number, name, digest in applied_rows)
    for wanted, (number, name, _) in enumerate(applied, 1):
        if number != wanted:
            raise MigrationError(f"the database has migration {number} ({name}), but not {wanted}")
    for given, (_, name, digest) in zip(migrations, applied, strict=False):
        if given.name != name or given.sha256_hex != digest:
            raise _differs(given, name, digest, migrations, applied)
    if len(applied) > len(migrations):
        names = ", ".join(name for _, name, _ in applied[len(migrations) :])
        log.warning("the database has migrations that were not given: %s", names)
    return list(migrations[len(applied) :])


def _differs(
    given: Migration, name: str, digest: str, migrations: Sequence[Migration], applied: Sequence[tuple[int, str, str]]
) -> MigrationError:
    what = "text" if given.name == name else "name"
    message = (
        f"{given.name}: its {what} is not the one that was applied as {name}:"
        f" the database has hash {digest}, the file has {given.sha256_hex}"
    )
    in_database = {row[1] for row in applied}
    in_source = {each.name for each in migrations[: len(applied)]}
    if in_database != in_source:
        message += (
            f"; only in the database: {', '.join(sorted(in_database - in_source)) or 'none'}"
            f"; only in the source: {', '.join(sorted(in_source - in_database)) or 'none'}"
        )
    return MigrationError(message, hint="an applied migration must not change: put changes into a new file")


# --------------------------------------------------------------------------- sources


def _texts_of(source: str | Path | Mapping[str, str]) -> dict[str, str]:
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, (str, Path)):
        raise UsageError(f"migrations come from a folder, a package or a mapping, not from {type(source).__name__}")
    folder = Path(source)
    if folder.is_dir():
        return _read_all(folder)
    if isinstance(source, str) and PACKAGE_NAME.fullmatch(source):
        return _read_all(_package(source))
    raise UsageError(f"there is no folder {_shown(source)}")


def _package(name: str) -> Any:
    try:
        return resources.files(name)
    except (ModuleNotFoundError, TypeError) as error:
        raise UsageError(f"there is neither a folder nor a package {name!r}") from error


def _read_all(folder: Any) -> dict[str, str]:
    return {each.name: _read(each) for each in folder.iterdir() if each.name.endswith(".sql") and each.is_file()}


def _read(file: Any) -> str:
    try:
        return str(file.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise MigrationError(f"{file.name}: the text is not UTF-8") from error
    except OSError as error:
        raise MigrationError(f"{file.name}: it cannot be read: {error}") from error


def _shown(source: object) -> str:
    return "the mapping" if isinstance(source, Mapping) else repr(str(source))
