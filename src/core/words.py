"""Words of any script, for every metric that compares or counts them.

In scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) each character
with its marks is a word, in all others each run of letters, marks and numbers. An emoji, or another symbol of
a kind that ASCII lacks, is a word of its own. ASCII text gives the same words as the tokeniser of the
rouge_score package, with which published figures are computed.
"""

import unicodedata
from functools import cache


@cache
def _patterns():
    import regex  # slow to load

    scripts = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
    unspaced = "".join(rf"\p{{Script={name}}}" for name in scripts)
    single = rf"[[{unspaced}]&&[\p{{L}}\p{{Nl}}]]"  # 〇 is not a letter but the number zero
    character = rf"{single}\p{{M}}*"
    run = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{single}]+"
    symbol = r"(?=\p{So})\X"  # whole, where several characters make one emoji
    piece = rf"[^\s--[{unspaced}]]+"
    marked = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--{single}]+"
    choices = ((character, run, symbol), (character, piece, r"\S"), (character, marked, r"[^\s]"))
    return [regex.compile("|".join(patterns), regex.V1) for patterns in choices]


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _patterns()[0].findall(unicodedata.normalize("NFC", text.lower()))


def words_with_punctuation(text: str) -> list[str]:
    """Lower-case text between blanks, punctuation included."""
    return _patterns()[1].findall(unicodedata.normalize("NFC", text.lower()))


def words_and_marks(text: str) -> list[str]:
    """Words in their own case, and each punctuation mark or symbol by itself."""
    return _patterns()[2].findall(unicodedata.normalize("NFC", text))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of `words_with_punctuation`, in the text as it is."""
    return [found.span() for found in _patterns()[1].finditer(text)]
