"""The texts that a net is made from: both cfgs and what --set changed. Kept in every checkpoint."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from convnet import cfg
from convnet.cfg import CfgError, Section, Sections
from convnet.graph import Graph, Shape
from convnet.registry import keys_of, rates_of

KEYS = ("imgsize", "channels")


def beside(path: str | Path) -> Path:
    """Where the params file of a layer definition is looked for."""
    return Path(path).with_name(f"{Path(path).stem}-params.cfg")


@dataclass(frozen=True)
class Source:
    """Name and text of the layer definition and of the params file, and the overrides."""

    name: str
    text: str
    params_name: str = ""
    params_text: str = ""
    overrides: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, path: str | Path, params: str | Path | None = None, overrides: tuple[str, ...] = ()
    ) -> "Source":
        """Read the files. `params` defaults to <name>-params.cfg beside the definition, if any.

        Raises CfgError.
        """
        text = cfg.load_text(path)
        if params is None and beside(path).is_file():
            params = beside(path)
        params_text = cfg.load_text(params) if params else ""
        return cls(str(path), text, str(params or ""), params_text, tuple(overrides))

    @classmethod
    def from_dict(cls, values: dict) -> "Source":
        """The source as a checkpoint holds it."""
        return cls(**{**values, "overrides": tuple(values["overrides"])})

    def to_dict(self) -> dict:
        """Plain values for a checkpoint."""
        return asdict(self)

    def sections(self) -> tuple[Sections, Sections]:
        """The sections of both files, overrides applied; raises CfgError."""
        sections, params, notes = cfg.Sections(), cfg.Sections(), []
        try:
            sections = cfg.parse(self.text, self.name)
        except CfgError as e:
            notes += e.notes
        try:
            params = cfg.parse(self.params_text, self.params_name, True)
        except CfgError as e:
            notes += e.notes
        for text in self.overrides if not notes else ():
            try:
                cfg.override(sections, text)
                cfg.override(params, text, existing=True)
            except CfgError as e:
                notes += e.notes
        if notes:
            raise CfgError(notes)
        return sections, params

    def image_size(self) -> tuple[int | None, int | None]:
        """imgSize and channels of the image data layer, None where the cfg leaves them open."""
        found = (re.fullmatch(r"0*[1-9]\d{0,8}", self._data().get(k, "")) for k in KEYS)
        return tuple(int(match[0]) if match else None for match in found)

    def _data(self) -> dict:
        """The section of the images."""
        for section in self.sections()[0].values():
            if section.get("type") == "data" and section.get("dataidx") == "0":
                return section
        return {}

    def images(self, size: tuple[int, int] | None) -> tuple[int, int, int | None] | None:
        """(H, W, C) of the images where there are none: of --size, else of the cfg; None: open.

        Raises CfgError where both say it and differ.
        """
        side, channels = self.image_size()
        H, W = size or (side, side)
        if side and (side, side) != (H, W):
            said = self._data()["imgsize"]
            more = f"; --set={said.section}.imgSize={H} changes it" if H == W else ""
            why = f"--size={H if H == W else f'{H}x{W}'} is for a cfg that leaves it open{more}"
            raise CfgError([said.wrong(why)])
        return (H, W, channels) if H else None

    def class_count(self, given: int | None) -> int | None:
        """What outputs=classes stands for without data: --classes, else 10; None: open."""
        return given or (10 if "classes" in self.text else None)

    def graph(
        self, feeds: dict[int, Shape | None] | None = None, classes: int | None = None
    ) -> Graph:
        """The layers and shapes of the net; raises CfgError."""
        return Graph(*self.sections(), feeds, classes)

    def check_keys(self) -> None:
        """Raises CfgError for what is wrong with the cfgs whatever the data is."""
        Graph(*self.sections(), classes=2, keys_only=True)

    def first_change(self, other: "Source") -> str:
        """What differs first between the definitions of two sources, rates aside; '' if nothing."""
        mine, theirs = self.sections()[0], other.sections()[0]
        for name in [*mine, *theirs]:
            a, b = mine.get(name), theirs.get(name)
            if a is None or b is None:
                return f"[{name}] is only in {self.name if a is not None else 'the checkpoint'}"
            for word in sorted(_fixed(a) | _fixed(b)):
                if a.get(word) != b.get(word):
                    key = (a.get(word) or b.get(word)).key
                    now, then = (s.get(word, "(none)") for s in (a, b))
                    return f"[{name}] {key}={now}, in the checkpoint {then}"
        return "" if list(mine) == list(theirs) else "the order of the sections"


def _fixed(section: Section) -> set[str]:
    """The keys of a section that no resume may change: no rates, nothing without a meaning here."""
    known, rates = keys_of(section), rates_of(section)
    strange = {word for word in section.inherited if word not in known}
    return {*section} - {*rates} - strange
