"""What classes of boxes are called: the names that were said, and the renamings since, here and where a label came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Names = tuple[str | None, ...]  # one for each box


class Renaming(NamedTuple):
    """That a class of boxes was given another name.

    Attributes:
        old, new: names.
        who, at: name, and time as now_utc writes it.
    """

    old: str
    new: str
    who: str
    at: str


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the boxes of a renamed label were called before.

    Attributes:
        box_classes: names that were said.
        renamed: what led from them to those of now, oldest first; each changed one of them.
    """

    box_classes: Names
    renamed: tuple[Renaming, ...]

    @property
    def steps(self) -> list[Names]:
        """The names that were said, and what each renaming made of them; the last are those of now."""
        found = [self.box_classes]
        for one in self.renamed:
            found.append(follow(found[-1], [one])[0])
        return found


def follow(names: Names, renamings: Iterable[Renaming]) -> tuple[Names, tuple[Renaming, ...]]:
    """Names after renamings, one after the other, and those of them that changed any."""
    changed = []
    for one in renamings:
        if one.old in names and one.old != one.new:
            names = tuple(one.new if name == one.old else name for name in names)
            changed.append(one)
    return names, tuple(changed)


class _Place(NamedTuple):
    """Where a renaming of a log stands among all others: those that came with a label follow those made here until then."""

    here: int
    arrived: int


@dataclass(slots=True)
class Renames:
    """The renamings of a log: of all labels that there were, and of single ones, which were renamed where they came from."""

    _of_all: list[tuple[_Place, Renaming, int]] = field(default_factory=list)
    _of_one: dict[int, list[tuple[_Place, Renaming]]] = field(default_factory=lambda: defaultdict(list))

    def add_of_all(self, number: int, renaming: Renaming, last_label: int) -> None:
        """Add one that was made here.

        Args:
            number: its own.
            renaming: what it is.
            last_label: number of the newest label at that time; later ones mean what they say.
        """
        self._of_all.append((_Place(number, 0), renaming, last_label))

    def add_of_one(self, number: int, renaming: Renaming, label_id: int, after: int) -> None:
        """Add one that came with a label.

        Args:
            number: its own.
            renaming: what it is.
            label_id: number of the label.
            after: number of the newest one that had been made here.
        """
        self._of_one[label_id].append((_Place(after, number), renaming))

    def of(self, label_id: int) -> Sequence[Renaming]:
        """Those that hold for a label, in order."""
        here = [(place, one) for place, one, last_label in self._of_all if label_id <= last_label]
        own = self._of_one.get(label_id, [])
        return [one for _, one in (sorted(here + own, key=lambda pair: pair[0]) if own else here)]
