"""Words of any script, for every metric that compares or counts them.

Scripts that write no blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) give single
characters with their marks, all others runs of letters, marks and numbers. An emoji or another symbol of a
kind that ASCII has none of is a word of its own. ASCII text gives the same words as the tokeniser of the
rouge_score package, whose figures are the published ones.
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
    build = lambda *choices: regex.compile("|".join(choices), regex.V1)
    return build(character, run, symbol), build(character, piece, r"\S"), build(character, marked, r"[^\s]")


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _patterns()[0].findall(unicodedata.normalize("NFC", text.lower()))


def words_with_punctuation(text: str) -> list[str]:
    """What stands between blanks, lower-case and with its punctuation."""
    return _patterns()[1].findall(unicodedata.normalize("NFC", text.lower()))


def words_and_marks(text: str) -> list[str]:
    """Words as they are written, and every other mark by itself."""
    return _patterns()[2].findall(unicodedata.normalize("NFC", text))
