"""Patterns of personal data: e-mail address, IBAN, card number, social security number, phone number, IPv4
address, date.

    find_spans("Write to kes@example.org")   [PiiSpan("email", "kes@example.org")]
    stands_in(PiiSpan("phone", "207-555-0142"), "Call (207) 555 0142")   True

A pattern knows a form, not a person: a date may be any date, a number of ten digits any number. What has a
check sum is tested with it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from .verdicts import mentions

OTHER = "other"
"""Type of a span that is given without a type and has no pattern."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
YEARS = range(1900, 2101)
GAP = r"[\s().-]*"
"""What may stand between two digits of one number."""


@dataclass(frozen=True)
class PiiSpan:
    """A piece of personal data: its type and its text."""

    type: str
    text: str


@dataclass(frozen=True)
class Pattern:
    """The form of one type.

    Args:
        form: Expression that a span matches as a whole.
        same: Maps a span to what all its spellings have in common; empty where the match is no such span.
    """

    form: re.Pattern[str]
    same: Callable[[str], str]


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _phone(text: str) -> str:
    """The digits; of a North American number without the country's 1."""
    digits = _digits(text)
    return digits[1:] if len(digits) == 11 and digits[0] == "1" else digits


def _ssn(text: str) -> str:
    """The digits; empty for a number with a group of zeros, which are never given out."""
    digits = _digits(text)
    return "" if digits[:3] == "0" * 3 or digits[3:5] == "00" or digits[5:] == "0" * 4 else digits


def _card(text: str) -> str:
    """The digits, where the last one is the check digit (Luhn)."""
    digits = _digits(text)
    doubled = [2 * int(digit) if place % 2 else int(digit) for place, digit in enumerate(reversed(digits))]
    return digits if sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0 else ""


def _iban(text: str) -> str:
    """The characters without blanks, where their check sum is right (ISO 13616: 1 modulo 97)."""
    plain = re.sub(r"\s", "", text).upper()
    number = "".join(str(int(character, 36)) for character in plain[4:] + plain[:4])
    return plain if 15 <= len(plain) <= 34 and int(number) % 97 == 1 else ""


def _ipv4(text: str) -> str:
    parts = [int(part) for part in text.split(".")]
    return ".".join(map(str, parts)) if all(part <= 255 for part in parts) else ""


def _date(text: str) -> str:
    """The date in ISO's form; empty for one that no calendar has. Of 3/4/1984 the month is read first, as in
    the United States, unless it cannot be one."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if name := re.search(r"[A-Za-z]{3}", re.sub(r"\d+(?:st|nd|rd|th)", "", text)):
        year, month, day = numbers[1], MONTHS.index(name[0].lower()) + 1, numbers[0]
    elif re.match(r"\d{4}", text):
        year, month, day = numbers
    else:
        month, day, year = numbers if numbers[0] <= 12 else (numbers[1], numbers[0], numbers[2])
    try:
        return date(year, month, day).isoformat() if year in YEARS else ""
    except ValueError:
        return ""


PATTERNS = {
    "email": Pattern(
        # Markdown writes an underscore with a backslash.
        re.compile(r"(?<![\w.+%\\-])[\w+%\\-]+(?:\.[\w+%\\-]+)*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![\w-])"),
        lambda text: text.replace("\\", "").lower(),
    ),
    "iban": Pattern(
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        _iban,
    ),
    "card": Pattern(re.compile(r"(?<![\d.-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\d-]|\.\d)"), _card),
    "ssn": Pattern(re.compile(r"(?<![\w-])\d{3}([ -])\d{2}\1\d{4}(?![\w-])"), _ssn),
    "phone": Pattern(
        re.compile(
            r"(?<![\w.+-])(?:(?:\+?1[\s.-]?)?(?:\(\d{3}\)\s?|\d{3}[\s.-])\d{3}[\s.-]\d{4}"
            r"|(?:\+?1)?[2-9]\d{2}[2-9]\d{6}"
            r"|\+[1-9]\d{0,2}(?:[\s.()-]{0,2}\d){7,12})(?![\w-]|\.\d)"
        ),
        _phone,
    ),
    "ipv4": Pattern(re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"), _ipv4),
    "date": Pattern(
        re.compile(
            rf"(?<![\w/-])(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{4}}"
            rf"|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{MONTH},? \d{{4}}"
            rf"|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})(?![\w/-])"
        ),
        _date,
    ),
}
"""Type -> pattern. Where two types match the same characters, the first counts."""
NUMBERS, ADDRESSES = ("phone", "ssn", "card", "iban"), ("email", "ipv4")


def find_spans(text: str) -> list[PiiSpan]:
    """All spans of a text, in reading order; none overlaps another."""
    found: list[tuple[int, int, str]] = []
    for name, pattern in PATTERNS.items():
        for match in pattern.form.finditer(text):
            start, end = match.start(), _valid_end(pattern, match)
            if end and not any(start < other_end and begin < end for begin, other_end, _ in found):
                found.append((start, end, name))
    return [PiiSpan(name, text[start:end]) for start, end, name in sorted(found)]


def _valid_end(pattern: Pattern, match: re.Match[str]) -> int:
    """Where a span ends; 0 for a match that is none. Of groups between blanks the last ones may be words
    behind the span, which have no part in its check sum."""
    text = match[0]
    while text:
        if pattern.form.fullmatch(text) and pattern.same(text):
            return match.start() + len(text)
        text = text.rpartition(" ")[0]
    return 0


def typed_span(value: str | dict) -> PiiSpan:
    """A span of a row's `pii`: a text, whose type is that of its pattern, or an object with type and text."""
    if isinstance(value, dict):
        return PiiSpan(value["type"], value["text"])
    spans = find_spans(value.strip())
    whole = [span for span in spans if span.text == value.strip()]
    return whole[0] if whole else PiiSpan(OTHER, value)


def same_text(span: PiiSpan) -> str:
    """What all spellings of a span have in common, in lower case. A span that a row names need not have the
    form of its type."""
    pattern = PATTERNS.get(span.type)
    if pattern and pattern.form.fullmatch(span.text) and (same := pattern.same(span.text)):
        return same.lower()
    return re.sub(r"[\W_]", "", span.text).lower() if span.type in NUMBERS else span.text.lower()


def first_match(kind: str, text: str) -> PiiSpan | None:
    """The first span of a type; None where the text has none, or the type no pattern."""
    return next((span for span in find_spans(text) if span.type == kind), None)


def stands_in(span: PiiSpan, text: str) -> bool:
    """Whether a text has a span: numbers whatever stands between their digits, dates in every form, addresses
    of mail and network as they are, all else word by word."""
    same = same_text(span)
    if span.type == "date" and any(same == same_text(found) for found in find_spans(text)):
        return True
    if span.type in NUMBERS and same:
        country = f"(?:1{GAP})?" if span.type == "phone" else ""
        spelling = GAP.join(map(re.escape, same))
        return bool(re.search(rf"(?<![^\W_]){country}{spelling}(?![^\W_])", text, re.I))
    if span.type in ADDRESSES:
        unescaped = text.replace("\\", "")
        return bool(re.search(rf"(?<![\w.+%-]){re.escape(same)}(?!\w|-\w|\.\w)", unescaped, re.I))
    return mentions(text, span.text)


def spans_of(row: dict) -> list[PiiSpan]:
    """The spans that a row names in `pii`, else those that the patterns find in its answer."""
    if "pii" in row:
        return [typed_span(value) for value in row["pii"]]
    return find_spans(row["answer"])
