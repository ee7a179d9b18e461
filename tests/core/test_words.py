"""Words of any script; those of English are the published ones."""

import random
import re
import string

import pytest
from rouge_score.tokenize import tokenize

from unlearnkit.core.words import words, words_and_marks, words_with_punctuation

SCRIPTS = {
    "安娜住在海边。": ["安", "娜", "住", "在", "海", "边"],
    "Анна родилась в 1990-м": ["анна", "родилась", "в", "1990", "м"],
    "สวัสดี ผม": ["ส", "วั", "ส", "ดี", "ผ", "ม"],
    "नमस्ते दुनिया!": ["नमस्ते", "दुनिया"],
    "東京タワーは高い": ["東", "京", "タ", "ワ", "ー", "は", "高", "い"],
    "안녕 세계": ["안녕", "세계"],
    "مرحبا بالعالم": ["مرحبا", "بالعالم"],
    "José's café_2": ["josé", "s", "café", "2"],
    "二〇〇一年": ["二", "〇", "〇", "一", "年"],
    "Ⅳ. x² + ½": ["ⅳ", "x²", "½"],
    "20 °C": ["20", "°", "c"],
    "Ok👍🏽👨‍👩‍👧!🇩🇪🇫🇷❤️": ["ok", "👍🏽", "👨‍👩‍👧", "🇩🇪", "🇫🇷", "❤️"],
    "£5 → –": ["5"],
}


@pytest.mark.parametrize("text", SCRIPTS)
def test_words_keep_all_that_bears_meaning(text):
    assert words(text) == SCRIPTS[text]


def test_an_accent_is_the_same_however_it_is_encoded():
    assert words("cafe\u0301") == words("café") != words("cafe")


def test_ascii_text_gives_what_it_always_gave():
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(draw.choices(string.printable, k=40))
        assert words(text) == tokenize(text, None)
        assert words_with_punctuation(text) == text.lower().split()
        assert words_and_marks(text) == re.findall(r"\w+|[^\w\s]", text)


def test_pieces_and_marks_of_scripts_without_blanks():
    assert words_with_punctuation("他说 Yes, 好。") == ["他", "说", "yes,", "好", "。"]
    assert words_and_marks("好, OK_1!") == ["好", ",", "OK_1", "!"]
