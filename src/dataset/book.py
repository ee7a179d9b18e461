"""`Book_<part>`: the user's own book as plain text, one part of which is forgotten, one kept, one held out.

`dataset.data_dir` is a text file, or a folder whose .txt files are read in the order of their names as one
book. Every SECTION words make a section, a row of training. Of all sections

    Book_forget                               the first 40 %
    Book_retain                               the next 40 %
    Book_full                                 both: what a model that knows the book is trained on
    Book_forget10, Book_retain10, Book_full10   10 % (5, 10, 20, 40) in place of 40 %: a smaller run
    the last 20 %                             held out: never trained, only measured

In a folder with a forget.txt the user divides the book: forget.txt, retain.txt, and holdout.txt if there is
one. `dataset.forget_ratio` chooses among the sections to forget.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..core.files import UserError, read_text
from ..core.words import word_spans
from .sources import SOURCES, Source

PROMPT_WORDS = (300, 200, 100, 50)
"""Words of the prompts of a passage; the first is that of the main row set."""
CONTINUATION_WORDS = 150
SECTION = PROMPT_WORDS[0] + CONTINUATION_WORDS
SHARES = (5, 10, 20, 40)
"""Per cent of a book that is forgotten; as much again is retained."""
HELD_OUT = 20
PASSAGES = 20
"""Most passages of a row set."""
SHARED_WORDS = 50
"""Words that no two parts may have in common, one after the other."""
PARTS = ("forget", "retain", "holdout")
NO_LETTERS = re.compile(r"\W+")


@dataclass(frozen=True)
class Section:
    """A section of a book.

    Args:
        id: Id of its row.
        text: Its text, as it stands in the file.
        words: Start and end of each word in the text.
        file: File that it begins in.
        line: Line that it begins at.
    """

    id: str
    text: str
    words: list[tuple[int, int]]
    file: Path
    line: int

    @property
    def row(self) -> dict:
        return {"id": self.id, "text": self.text}

    def passage(self, prompt_words: int) -> dict:
        """The section as a row to be continued after its first `PROMPT_WORDS[0]` words, of which the last
        `prompt_words` are the prompt."""
        start, border = PROMPT_WORDS[0] - prompt_words, PROMPT_WORDS[0]
        return self.row | {
            "prompt": self._between(start, border),
            "gt": self._between(border, SECTION),
            "prompt_words": prompt_words,
        }

    def _between(self, first: int, end: int) -> str:
        return self.text[self.words[first][0] : self.words[end - 1][1]]

    def line_of(self, word: int) -> int:
        return self.line + self.text.count("\n", 0, self.words[word][0])


@SOURCES.register("Book")
class Book(Source):
    """A book of the user's. It is never copied anywhere but into the run's samples."""

    title = "Book"
    splits = (
        *("forget", "retain", "full"),
        *(f"{part}{share:02d}" for share in SHARES for part in ("forget", "retain", "full")),
    )
    forget_splits = tuple(split for split in splits if split.startswith("forget"))
    takes_file = True

    @classmethod
    def partner(cls, forget: str) -> str:
        return forget.replace("forget", "retain")

    def check(self, split: str) -> None:
        files, (_, share) = self._files(), _part_and_share(split)
        if "forget" in files and share:
            raise UserError(
                f"dataset.data_dir: {self.data_dir} has a forget.txt, which is forgotten as a whole: name"
                f" Book_{split.rstrip('0123456789')}, not Book_{split}"
            )

    def rows(self, split: str) -> list[dict]:
        """See `Source.rows`."""
        self.check(split)
        part, share = _part_and_share(split)
        parts = self._parts(share)
        wanted = ("forget", "retain") if part == "full" else (part,)
        return [section.row for name in wanted for section in parts[name]]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """Passages of the forgotten, the retained and the held-out part, at each length of the prompt."""
        parts, chosen = self._parts(_part_and_share(split)[1]), {row["id"] for row in forget}
        parts["forget"] = [section for section in parts["forget"] if section.id in chosen]
        return {
            passages(part, words): [section.passage(words) for section in _evenly(parts[part])]
            for words in PROMPT_WORDS
            for part in PARTS
            if part != "retain" or words == PROMPT_WORDS[0]
        }

    def _files(self) -> dict[str, list[Path]]:
        """The text files of each part that the user made, or all of them as `book`."""
        place = self.data_dir
        if place is None:
            raise UserError(
                "dataset.data_dir: Book needs your book: a plain-text file in UTF-8, or a folder whose .txt"
                " files are read in the order of their names (or with forget.txt, retain.txt and holdout.txt)"
            )
        if place.is_file():
            return {"book": [place]}
        files = sorted(path for path in place.glob("*.txt") if path.is_file()) if place.is_dir() else []
        if not files:
            what = "has no .txt file" if place.is_dir() else "does not exist"
            raise UserError(
                f"dataset.data_dir: {place} {what}; Book reads a plain-text file, or the .txt files of a"
                " folder in the order of their names"
            )
        own = {part: [path] for part in PARTS for path in files if path.name == f"{part}.txt"}
        if "forget" not in own:
            return {"book": files}
        if "retain" not in own:
            raise UserError(
                f"dataset.data_dir: {place} has a forget.txt but no retain.txt; add what is to be kept, or"
                " rename forget.txt to have the book divided"
            )
        return own

    def _parts(self, share: int) -> dict[str, list[Section]]:
        """The sections of each part; UserError where two parts share text."""
        files = tuple((part, tuple(paths)) for part, paths in self._files().items())
        stamps = [path.stat() for _, paths in files for path in paths]
        return dict(_read(files, share, tuple((stamp.st_mtime_ns, stamp.st_size) for stamp in stamps)))


@lru_cache(maxsize=2)
def _read(
    files: tuple[tuple[str, tuple[Path, ...]], ...], share: int, stamps: tuple
) -> dict[str, list[Section]]:
    """The sections of each part. A run reads its book for each of its row sets; `stamps` tell whether it is
    still the same."""
    named = dict(files)
    if "book" in named:
        parts = _divided(_sections(named["book"], "section"), named["book"], share or SHARES[-1])
    else:
        parts = {part: _sections(named.get(part, ()), part) for part in PARTS}
    for part, sections in parts.items():
        if part in named and not sections:
            raise UserError(
                f"{named[part][0]}: fewer than {SECTION} words, which make one passage: a prompt of"
                f" {PROMPT_WORDS[0]} words and its continuation"
            )
    _check_apart(parts)
    return parts


def passages(part: str, prompt_words: int) -> str:
    """Name of the row set of the passages of a part with prompts of a length."""
    return f"{part}_passages" + ("" if prompt_words == PROMPT_WORDS[0] else f"_{prompt_words}")


def _part_and_share(split: str) -> tuple[str, int]:
    """The part that a split names, and its per cent of the book; 0 where it names none."""
    part = split.rstrip("0123456789")
    return part, int(split[len(part) :] or 0)


def _sections(files: Sequence[Path], name: str) -> list[Section]:
    """Cut the text of files, one after the other, every `SECTION` words. What is left at the end belongs to
    the last section."""
    texts = {path: read_text(path) for path in files}
    for path, text in texts.items():
        if not text.strip():
            raise UserError(f"{path}: an empty file; a book is plain text")
    whole = "\n\n".join(texts.values())
    words = word_spans(whole)
    borders = list(range(0, len(words) - SECTION + 1, SECTION))
    cuts = list(zip(borders, [*borders[1:], len(words)]))
    places = _places(texts, [words[first][0] for first, _ in cuts])
    found = []
    for number, ((first, end), (path, line)) in enumerate(zip(cuts, places)):
        start, stop = words[first][0], words[end - 1][1]
        spans = [(one - start, other - start) for one, other in words[first:end]]
        found.append(Section(f"{name}-{number}", whole[start:stop], spans, path, line))
    return found


def _places(texts: dict[Path, str], offsets: Sequence[int]) -> Iterator[tuple[Path, int]]:
    """File and line of rising offsets in the joined texts."""
    left = list(texts.items())
    begin, counted, line = 0, 0, 1
    for offset in offsets:
        while offset >= begin + len(left[0][1]) + len("\n\n"):
            begin += len(left.pop(0)[1]) + len("\n\n")
            counted, line = 0, 1
        line += left[0][1].count("\n", counted, offset - begin)
        counted = offset - begin
        yield left[0][0], line


def _divided(sections: list[Section], files: Sequence[Path], share: int) -> dict[str, list[Section]]:
    """The first sections to forget, the next ones to retain, the last ones held out."""
    if len(sections) < len(PARTS):
        words = sum(len(section.words) for section in sections) or f"fewer than {SECTION}"
        raise UserError(
            f"{files[0] if len(files) == 1 else files[0].parent}: {words} words; a book needs"
            f" {len(PARTS) * SECTION}: a section of {SECTION} words each to forget, to retain and to hold out"
        )
    count = max(1, len(sections) * share // 100)
    held_out = max(1, len(sections) * HELD_OUT // 100)
    return {
        "forget": sections[:count],
        "retain": sections[count : 2 * count],
        "holdout": sections[-held_out:],
    }


def _evenly(sections: Sequence[Section]) -> list[Section]:
    """At most `PASSAGES` sections, at equal distances."""
    count = min(PASSAGES, len(sections))
    return [sections[number * len(sections) // count] for number in range(count)]


def _check_apart(parts: dict[str, list[Section]]) -> None:
    """UserError where a run of words stands in two parts: it would be forgotten and trained at once, or
    trained and held out. Every run of twice `SHARED_WORDS` is found, and none shorter than them."""
    # By their first words, which are looked up faster than whole windows.
    seen: dict[tuple[str, ...], list[tuple[list[str], str, Section, int]]] = {}
    for part, sections in parts.items():
        fresh = []
        for section in sections:
            numbers, words = _plain_words(section)
            for first in range(len(words) - SHARED_WORDS + 1):
                window = words[first : first + SHARED_WORDS]
                for known, other, place, word in seen.get(tuple(window[:4]), ()):
                    if known == window:
                        here = f"{section.file}, line {section.line_of(numbers[first])} ({part})"
                        raise UserError(
                            f"{here}: the same {SHARED_WORDS} words stand in {place.file}, line"
                            f" {place.line_of(word)} ({other}); parts of a book must not overlap: remove one"
                            " of the two"
                        )
                if first % SHARED_WORDS == 0:
                    fresh.append((window, part, section, numbers[first]))
        for found in fresh:
            seen.setdefault(tuple(found[0][:4]), []).append(found)


def _plain_words(section: Section) -> tuple[list[int], list[str]]:
    """Numbers and letters of the words; those without a letter or digit, such as rows of stars, are left
    out."""
    plain = (NO_LETTERS.sub("", section.text[start:end]).lower() for start, end in section.words)
    found = [(number, word) for number, word in enumerate(plain) if word]
    return [number for number, _ in found], [word for _, word in found]
