"""Read a .cfg file so that every value remembers the file, the line and the key it came from.

The dialect is cuda-convnet's: sections in order, `key=value` or `key: value`, keys matched without
regard to case, `#`, `;` or `rem` at the beginning of a line for a comment, ` ;` after a value, an
indented line continues the value before it, `[DEFAULT]` for all. Where the old reader guessed in
silence this one says so: a `#` inside a value, a key given twice with different values, an unknown
key are errors, all of them reported at once.
"""

import configparser
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LIMIT = 4 << 20  # bytes; no cfg is larger


class Where(NamedTuple):
    """Where a word of the cfg stood; line 0 is the command line, or the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Note(NamedTuple):
    """One mistake: where it is and a line of text that says what it is."""

    where: Where
    text: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {short(self.text, 400)}")


class CfgError(Exception):
    """One mistake, or several: `notes`, sorted by file and line; printed one a line."""

    def __init__(self, notes: Iterable[Note]):
        self.notes = sorted(set(notes), key=lambda note: (note.where, note.text))
        super().__init__("\n".join(map(str, self.notes)))


class Value(str):
    """The text after `key=`, with `where` it stood, its `section` and its `key` as written."""

    where: Where
    section: str
    key: str

    def __new__(cls, text: str, where: Where, section: str, key: str) -> "Value":
        value = super().__new__(cls, text)
        value.where, value.section, value.key = where, section, key
        return value

    def wrong(self, why: str) -> Note:
        """The note that this value is wrong, and why."""
        if "\n" in self:
            why += " (an indented line continues the value above it)"
        return Note(self.where, f"[{short(self.section)}] {short(self.key)}={short(self)}: {why}")


class Section(dict):
    """One section of the file: lower-case key -> Value, in file order; `name` and `where`.

    `inherited`: the keys that come from [DEFAULT], which may mean nothing to this section.
    """

    def __init__(self, name: str, where: Where):
        super().__init__()
        self.name, self.where, self.inherited = name, where, set()

    def wrong(self, why: str) -> Note:
        """The note that something is wrong with the section.

        If `why` begins as in `stride=3 is more than sizeX=2` the note is at the line of that key.
        """
        found = re.match(r"(\w+)=([^\s:,]+)[:,]?(?: but)? ", why)
        value = found and self.get(found[1].lower())
        if value is None:
            return Note(self.where, f"[{short(self.name)}] {why}")
        item = "" if found[2] == value else f"{found[2]} "
        at = f"[{short(self.name)}] {short(value.key)}={short(value)}"
        return Note(value.where, f"{at}: {item}{why[found.end() :]}")

    def inherit(self, default: "Section") -> None:
        """Take the keys of [DEFAULT] that the section does not have itself."""
        for word, value in default.items():
            if word not in self or word in self.inherited:
                self[word] = value
                self.inherited.add(word)


class Sections(dict):
    """The sections of a file by name, in file order; `default` is [DEFAULT], maybe empty."""

    def __init__(self):
        super().__init__()
        self.default = Section("DEFAULT", Where("", 0))


class _Reader(configparser.RawConfigParser):
    """configparser in cuda-convnet's dialect, over the lines of a _Source."""

    SECTCRE = re.compile(r"\[(?P<header>[^\]]+)\]")

    def __init__(self, source: "_Source"):
        super().__init__(strict=False, comment_prefixes=(), inline_comment_prefixes=None)
        self.optionxform = source.mark


class _Source:
    """The lines of a text for configparser: those that say something, comments taken off.

    configparser forgets lines, so each key is handed to it with its line in front: `12 sizeX`.
    That also keeps apart the keys that are given twice, of which it would keep the last.
    """

    def __init__(self, text: str, file: str):
        self.file, self.notes, self.headers = file, [], {}
        self.rows = list(_rows(text))
        self.at = -1  # the row that configparser looks at

    def __iter__(self) -> Iterator[str]:
        orphan = False
        for at, (line, row) in enumerate(self.rows):
            self.at = at
            if header := _Reader.SECTCRE.match(row.strip()):
                self.headers.setdefault(header["header"], line)
            if not (self.headers or orphan):
                self.wrong(line, f"no [section] above this line: {_shown(row)}")
                orphan = True
            yield row if self.headers else ""

    def mark(self, key: str) -> str:
        """configparser's optionxform."""
        return f"{self.rows[self.at][0]} {key}"

    def wrong(self, line: int, why: str) -> None:
        self.notes.append(Note(Where(self.file, line), why))

    def section(self, name: str, items: Iterable[tuple[str, str]]) -> Section:
        """A section of the marked keys and their values.

        A key given twice with unequal values is a mistake.
        """
        found = Section(name, Where(self.file, self.headers.get(name, 0)))
        for marked, text in items:
            line, key = marked.split(" ", 1)
            text = "" if text == '""' else text
            value = Value(text, Where(self.file, int(line)), name, key)
            first = found.setdefault(key.lower(), value)
            if first != value:
                why = f"is already {short(first)} on line {first.where.line}; keep one"
                self.notes.append(value.wrong(why))
        return found


def parse(text: str, file: str = "<text>", may_be_empty: bool = False) -> Sections:
    """The sections of a text. Raises CfgError with every mistake of form."""
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise CfgError([Note(Where(file, line), "a NUL character: this is not a text file")])
    source, sections = _Source(text, file), Sections()
    reader = _Reader(source)
    try:
        reader.read_file(source, file)
    except configparser.ParsingError as e:
        for number, _ in e.errors:
            line, row = source.rows[number - 1]
            source.wrong(line, f"neither [section] nor key=value: {_shown(row)}")
    default = reader.defaults()
    sections.default = source.section("DEFAULT", default.items())
    for name in reader.sections():
        own = [(key, value) for key, value in reader.items(name) if key not in default]
        sections[name] = source.section(name, own)
        sections[name].inherit(sections.default)
    if not sections and not source.notes and not may_be_empty:
        source.wrong(1, "no [section] in this file: it describes no layer")
    if source.notes:
        raise CfgError(source.notes)
    return sections


def _rows(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that say something, comments taken off."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for line, row in enumerate(text.split("\n"), 1):
        row = _without_comment(row).rstrip()
        first = row.split(None, 1)[:1]
        if first and first[0][0] not in "#;" and not (first[0].lower() == "rem" == row[:3].lower()):
            yield line, row


def _without_comment(row: str) -> str:
    """Cut ` ; note` off, but not a `;` between brackets: dexp[base=1; tgtFactor=2]."""
    depth = 0
    for i, c in enumerate(row):
        depth += (c == "[") - (c == "]")
        if c == ";" and depth <= 0 and i and row[i - 1].isspace():
            return row[:i]
    return row


def _shown(row: str) -> str:
    page = " (a web page, not a cfg?)" if row.lstrip().startswith("<") else ""
    return repr(short(row)) + page


def short(text: str, most: int = 60) -> str:
    """The text on one line, cut where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def printable(text: str) -> str:
    """The text without control characters, so that a file cannot move a terminal's cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def read(path: str | Path) -> Sections:
    """The sections of a cfg file. Raises CfgError; a file that cannot be read is one too."""
    return parse(load_text(path), str(path))


def load_text(path: str | Path) -> str:
    """The text of a file. Raises CfgError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LIMIT + 1)
    except (OSError, ValueError) as e:
        raise CfgError([Note(Where(str(path), 0), _why_not(path, e))]) from None
    if len(raw) > LIMIT:
        raise CfgError([Note(Where(str(path), 0), "more than 4 MiB: this is not a cfg")])
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CfgError([Note(Where(str(path), 1), "is UTF-16 text; save it as UTF-8")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # old files have comments in any 8-bit alphabet


def _why_not(path: str | Path, error: Exception) -> str:
    """Why a file cannot be read, with the nearest name that is there."""
    why = (getattr(error, "strerror", None) or str(error)).lower()
    try:
        beside = [p.stem for p in Path(path).parent.glob("*.cfg")]
    except (OSError, ValueError):
        beside = []
    return why + nearest(Path(path).stem, beside).replace("'?", ".cfg'?")


def override(sections: Sections, text: str, existing: bool = False) -> None:
    """Apply `section.key=value` (as of --set) to the sections; raises CfgError.

    existing: change only what the section, or [DEFAULT], says already; otherwise the key is added.
    """
    where = Where(f"--set {short(text)}", 0)
    path, eq, value = text.partition("=")
    name, dot, key = (word.strip() for word in path.rpartition("."))
    if not (eq and dot and name and key):
        raise CfgError([Note(where, "must be section.key=value, as in conv1.filters=64")])
    section = sections.default if name == "DEFAULT" else sections.get(name)
    if existing:
        if key.lower() not in (sections.default if section is None else section):
            return
        if section is None:
            section = sections[name] = Section(name, where)
            section.inherit(sections.default)
    if section is None:
        raise CfgError([Note(where, f"no section [{short(name)}]{nearest(name, sections)}")])
    section[key.lower()] = Value(value.strip(), where, name, key)
    section.inherited.discard(key.lower())
    if section is sections.default:
        for other in sections.values():
            other.inherit(section)


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` if one of the words is close to it, else nothing."""
    words = sorted(words)
    hit = difflib.get_close_matches(word.lower()[:60], [w.lower() for w in words], 1, 0.6)
    return next((f"; did you mean {short(w)!r}?" for w in words if hit and w.lower() == hit[0]), "")
