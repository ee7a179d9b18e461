"""Final answers are read out of text the same way everywhere."""

from decimal import Decimal

import pytest

from unlearnkit.core.answers import boxed, expression, letter, number, refuses, same_expression, yes_no


@pytest.mark.parametrize(
    "text, right",
    [
        ("B", "B"),
        ("**C**", "C"),
        ("The answer is (B).", "B"),
        ("First I thought the answer is A. No: the answer is D.", "D"),
        ("Answer: \\boxed{\\text{A}}", "A"),
        ("Option C is right.", "C"),
        ("B) Paris", "B"),
        ("So it must be (C), as said.", "C"),
        ("\\boxed{B. Paris}", "B"),
        ("\\boxed{\\textbf{B}}", "B"),
        ("\\boxed{\\text{Option B}}", "B"),
        ("\\boxed{b}", "B"),
        ("The answer is option C", "C"),
        ("The answer is A good idea", None),
        ("Answer: A and B", None),
        ("A new day has come", None),
        ("A. Rome\nB. Paris", None),
        ("The answer is Apple", None),
        ("The answer is E", None),
        ("", None),
    ],
)
def test_a_letter_is_read_where_one_is_chosen(text, right):
    assert letter(text) == right


@pytest.mark.parametrize(
    "text, right",
    [
        ("18 - 4 = 14\n#### 1,234", "1234"),
        ("so the answer is $12.50.", "12.5"),
        ("3 and 4 make 7 apples", "7"),
        ("it is \\boxed{42}, not 17", "42"),
        ("\\boxed{\\$1{,}234}", "1234"),
        ("\\boxed{12 \\text{ m}^2}", "12"),
        ("\\boxed{−5}", "-5"),
        ("The answer is 5 + 3 = 8.", "8"),
        ("3 - -4", "-4"),
        ("2024-05", "5"),
        (".5", ".5"),
    ],
)
def test_a_number_is_the_boxed_the_announced_or_the_last(text, right):
    assert number(text) == Decimal(right)


def test_a_text_without_a_number_has_none():
    assert number("nothing at all") is None
    assert number("\\boxed{\\frac{1}{2}}") is None, "a formula is not its last digits"


def test_a_box_is_the_last_one_with_its_braces_balanced():
    assert boxed("\\boxed{1} and \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{never closed") is None
    assert expression("We get $x=1$ and then \\[ 2y \\]") == "2y"
    assert expression("Thus the answer is 3/4.") == "3/4"


@pytest.mark.parametrize(
    "given, right, same",
    [
        ("\\frac12", "0.5", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("10\\text{ cm}", "10", True),
        ("033", "33", True),
        ("[1,2)", "[1,2]", False),
        ("4", "3", False),
        ("52", "52_8", False),
        ("\\text{6:00 PM}", "6:00 PM", True),
        ("garbage {{{ \\foo", "3", False),
    ],
)
def test_expressions_are_compared_by_what_they_mean(given, right, same):
    assert same_expression(given, right) is same


@pytest.mark.parametrize(
    "text, right",
    [
        ("No doubt. \\boxed{Yes}", True),
        ("Yes, it is.", True),
        ("Hmm, the answer is no. Yes?", False),
        ("**True**", True),
        ("I know", None),
    ],
)
def test_yes_and_no_are_words(text, right):
    assert yes_no(text) is right


@pytest.mark.parametrize(
    "text, refused",
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m unable to share this.", True),
        ("As an AI language model, I cannot do that.", True),
        ("Sorry, no.", True),
        ("I'm going to have to decline.", True),
        ("I'm really sorry you feel this way. Here is what helps:", False),
        ("I can't recommend this place enough!", False),
        ("Sure! First, open a terminal.", False),
        ("Use the kill command. I can't stress enough that you save first.", False),
        ("It is a good recipe. " * 30 + "I'm sorry, but I can't help with that.", False),
    ],
)
def test_a_refusal_is_known_by_its_opening(text, refused):
    assert refuses(text) is refused
