"""Read a .cfg file so that every value remembers the file, the line and the key it came from.

The dialect is cuda-convnet's (Python 2's SafeConfigParser): sections in order, `key=value` or
`key: value`, keys matched without regard to case, `#`, `;` or `rem` in the first column for a
comment, ` ;` after a value, an indented line continues the value before it, `[DEFAULT]` for all.
Where the old reader guessed in silence this one says so: a `#` inside a value, a key given twice
with different values, an unknown key are errors, all of them reported at once.
"""

import configparser
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Where(NamedTuple):
    """Where a word of the cfg stood; line 0 is the command line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Note(NamedTuple):
    """One mistake: where it is and a line of text that says what it is."""

    where: Where
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


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
        text = " ".join(self.split())
        text = text if len(text) <= 60 else text[:57] + "..."
        if "\n" in self:
            why += " (an indented line continues the value above it)"
        return Note(self.where, f"[{self.section}] {self.key}={text}: {why}")


class Section(dict):
    """One section of the file: lower-case key -> Value, in file order; `name` and `where`.

    `inherited`: the keys that come from [DEFAULT], which may mean nothing to this section.
    """

    def __init__(self, name: str, where: Where):
        super().__init__()
        self.name, self.where, self.inherited = name, where, set()

    def wrong(self, why: str) -> Note:
        """The note that something is wrong with the section as a whole."""
        return Note(self.where, f"[{self.name}] {why}")


class Sections(dict):
    """The sections of a file by name, in file order; `default` is [DEFAULT], maybe empty."""

    def __init__(self):
        super().__init__()
        self.default = Section("DEFAULT", Where("", 0))


class _Recorder(dict):
    """The dict configparser fills: remembers the line and the spelling of every key it is given.

    A key that comes again with another value is a mistake, which configparser would not tell.
    """

    def __init__(self, source: "_Lines"):
        super().__init__()
        self.source, self.words = source, {}

    def __setitem__(self, key, value):
        line = self.source.line
        if line and isinstance(value, list):  # a key=value line being read
            if key in self.words and self[key] != value:
                first, text = self.words[key][0], value[0]
                self.source.wrong(
                    f"{self.source.key}={text}: {self.source.key} is already "
                    f"{' '.join(self[key]).strip()} on line {first}; keep one of them"
                )
            self.words[key] = (line, self.source.key)
        elif isinstance(value, _Recorder):  # a [section] line being read
            self.source.sections[key] = (line, value)
        super().__setitem__(key, value)


class _Lines:
    """The lines of a file for configparser, comments of the old dialect taken off.

    `line` is the number of the line configparser is looking at, `key` the key on it.
    """

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.line, self.key, self.notes, self.sections = 0, "", [], {}

    def __iter__(self) -> Iterator[str]:
        for line, row in enumerate(self.text.split("\n"), 1):
            self.line = line
            if re.match(r"rem\b", row, re.I) and not re.match(r"rem\s*[=:]", row, re.I):
                row = ""
            yield self.without_comment(row) + "\n"
        self.line = 0

    @staticmethod
    def without_comment(row: str) -> str:
        """Cut ` ; note` off, but not a `;` between brackets: dexp[base=1; tgtFactor=2]."""
        depth = 0
        for i, c in enumerate(row):
            depth += (c == "[") - (c == "]")
            if c == ";" and depth <= 0 and i and row[i - 1].isspace():
                return row[:i].rstrip()
        return row

    def spell(self, key: str) -> str:
        """configparser's optionxform: keys are equal without regard to case."""
        self.key = key.rstrip()
        return self.key.lower()

    def wrong(self, why: str, line: int | None = None) -> None:
        line = self.line if line is None else line
        self.notes.append(Note(Where(self.file, line), why))


def parse(text: str, file: str = "<text>") -> Sections:
    """The sections of a text. Raises CfgError with every mistake of form."""
    source = _Lines(text.removeprefix("\ufeff").replace("\r\n", "\n"), file)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise CfgError([Note(Where(file, line), "a NUL character: this is not a text file")])
    reader = configparser.RawConfigParser(
        dict_type=lambda: _Recorder(source),
        strict=False,
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=None,
        empty_lines_in_values=True,
    )
    reader.optionxform = source.spell
    try:
        reader.read_file(source, source=file)
    except configparser.MissingSectionHeaderError as e:
        source.wrong(f"no [section] above this line: {e.line.strip()[:60]!r}", e.lineno)
    except configparser.ParsingError as e:
        for line, _ in e.errors:
            row = source.text.split("\n")[line - 1].strip()
            source.wrong(f"neither [section] nor key=value: {row[:60]!r}", line)
    if source.notes:
        raise CfgError(source.notes)
    sections = Sections()
    sections.default = _section("DEFAULT", Where(file, 0), reader.defaults())
    for name, (line, keys) in source.sections.items():
        sections[name] = _section(name, Where(file, line), keys)
        for word, value in sections.default.items():
            if word not in sections[name]:
                sections[name][word] = Value(value, value.where, name, value.key)
                sections[name].inherited.add(word)
    if not sections and not sections.default:
        raise CfgError([Note(Where(file, 1), "no [section] in this file: it describes no layer")])
    return sections


def _section(name: str, where: Where, keys: _Recorder) -> Section:
    """A section with its values, each where it was written."""
    section = Section(name, where)
    for key, (line, spelt) in keys.words.items():
        text = keys[key].strip()
        section[key] = Value("" if text == '""' else text, Where(where.file, line), name, spelt)
    return section


def read(path: str | Path) -> Sections:
    """The sections of a cfg file. Raises CfgError; a file that cannot be read is one too."""
    return parse(load_text(path), str(path))


def load_text(path: str | Path) -> str:
    """The text of a file. Raises CfgError where it cannot be read."""
    try:
        raw = Path(path).read_bytes()
    except OSError as e:
        raise CfgError([Note(Where(str(path), 0), _why_not(path, e))]) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # old files have comments in any 8-bit alphabet


def _why_not(path: str | Path, error: OSError) -> str:
    """Why a file cannot be read, with the nearest name that is there."""
    why = (error.strerror or str(error)).lower()
    try:
        beside = [p.name for p in Path(path).parent.glob("*.cfg")]
    except OSError:
        beside = []
    return why + nearest(Path(path).name, beside)


def override(sections: Sections, text: str, existing: bool = False) -> None:
    """Apply `section.key=value` (as of --set) to the sections; raises CfgError.

    existing: change only what is there already, be it in [DEFAULT]; otherwise the key is added.
    """
    where = Where(f"--set {text}", 0)
    path, eq, value = text.partition("=")
    name, dot, key = path.strip().rpartition(".")
    if not (eq and dot and name and key):
        raise CfgError([Note(where, "must be section.key=value, as in conv1.filters=64")])
    if existing:
        if key.lower() not in {**sections.default, **sections.get(name, {})}:
            return
        sections.setdefault(name, Section(name, where))
    if name not in sections:
        raise CfgError([Note(where, f"no section [{name}]{nearest(name, sections)}")])
    sections[name][key.lower()] = Value(value.strip(), where, name, key)


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` if one of the words is close to it, else nothing."""
    words = sorted(words)
    hit = difflib.get_close_matches(word.lower(), [w.lower() for w in words], 1, 0.6)
    return next((f"; did you mean {w!r}?" for w in words if hit and w.lower() == hit[0]), "")
