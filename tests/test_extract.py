r"""Answers out of text: numbers in every style and back, marks before others, labels among prose, yes and no."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.score.extract import choice, number, same, yes_no

LABELS = ["A", "B", "C", "D"]

# ---- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", 1234),
        ("$5.00", 5),
        ("-$5", -5),
        ("$-5", -5),
        (r"\$1,234.50", "1234.5"),
        ("-3", -3),
        ("−3", -3),
        ("x=-3", -3),
        ("(+7)", 7),
        ("3/4", "3/4"),
        ("-12 / 8", "-3/2"),
        ("1 1/2", "3/2"),
        ("-1 1/2", "-3/2"),
        ("2½ cups", "5/2"),
        ("-½", "-1/2"),
        (r"\frac{3}{4}", "3/4"),
        (r"-\dfrac{3}{4}", "-3/4"),
        (r"\frac{-3}{4}", "-3/4"),
        (r"1\frac12", "3/2"),
        ("50%", 50),
        (r"12.5\%", "12.5"),
        ("1e3", 1000),
        ("2.5E-3", "1/400"),
        (r"1.5 \times 10^{3}", 1500),
        ("3 x 10^-2", "3/100"),
        ("12 apples", 12),
        ("12kg", 12),
        ("5.", 5),
        (".5", "1/2"),
        ("so it is...5", 5),
        ("１２", 12),
        ("一共有12个苹果", 12),
        (r"1{,}234", 1234),
        (r"12\,000", 12000),
        ("12\u202f000", 12000),
        ("0.10", "1/10"),
        ("007", 7),
    ],
)
def test_one_number_in_many_styles(text, value):
    assert number(text) == Fraction(value)
    assert number(f"Well: {text}") == Fraction(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.234", "1.234"),  # English, whatever its writer meant
        ("1,5", None),
        ("1,2,3", None),
        ("0,123", None),
        ("1.234,56", None),
        ("1.234.567", None),
        ("1 234", 234),
        ("the 3rd", None),
        ("12 on the 3rd and the 4^{th}", 12),
        ("3/4/2020", None),
        ("2020-03-04", None),
        ("04.03.2020", None),
        ("March 4, 2020", 2020),
        ("at 3:45", None),
        ("H2O and x1 and v2.0", None),
        ("model-4", 4),
        ("5-3", 3),
        ("10%-20%", 20),
        ("- 3 apples", 3),
        ("5 12/3", 4),
        ("3/0", None),
        ("2^5", None),
        ("10²", None),
        ("12 cm^2", 12),
        (r"30^{\circ}", 30),
        ("x_{1}", None),
        ("5k", 5),
        ("seven", None),
        ("", None),
    ],
)
def test_readings_where_more_than_one_is_possible(text, value):
    assert number(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("First 3, then 8, so 11 in all.", 11),
        ("#### 42\nThat took 3 steps.", 42),
        (r"So \boxed{12} crates on 3 carts.", 12),
        (r"\[ x = \boxed{-\frac{3}{4}} \] by rule 2", "-3/4"),
        (r"\boxed{12\text{ cm}^2} of 20", 12),
        (r"so \boxed{12 and then it was cut", 12),
        ("The answer is 7, since 10 - 3 is 7 and 3 were lost.", 7),
        ("The answer is 5. No: the answer is 6. I took 2 tries.", 6),
        ("Final answer: $1,234.50 for 3", "1234.5"),
        ("**Final Answer**\n\n**Answer:** 18 of 20", 18),
        ("The final answer is:\n\n  −4\nof 9", -4),
        ("The answer is 3 + 4 = 7.", 7),
        (r"The answer is $3 \times 4 = 12$ of 50", 12),
        ("The answer is 3 apples + 4 apples = 7 apples, 2 each", 7),
        ("The answer is 3 + 4.", 3),
        ("The answer is 5 because 2 + 4 = 6 fails.", 5),
        ("The answer is seven.\nIt was 4 before.", 4),
        ("#### Step 2\nadd 5", 5),
        ("The answer is 9.\n#### 2. Check it\nIt holds.", 9),
        ("##### 3\n## 4\nso 8", 8),
        ("Answer: 3/4/2020, or 5", 5),
    ],
)
def test_a_marked_answer_wins_else_the_last_number(text, value):
    assert number(text) == Fraction(value)


PLACES = [
    "{}",
    "So it comes to {}.",
    "The answer is {}.",
    "12 of 99 went.\n#### {}",
    "Final answer: {} (of 7)",
    "It is ${}$ now.",
]


def grouped(n: int) -> str:
    return f"{n:,}"


@given(st.integers(-(10**12), 10**12), st.sampled_from(PLACES), st.sampled_from([str, grouped]), st.booleans())
def test_integers_come_back(n, place, style, printed):
    written = style(n).replace("-", "−") if printed else style(n)
    assert number(place.format(written)) == n


@given(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(PLACES), st.sampled_from(["{:f}", "{:,f}", "{:e}"]))
def test_decimals_come_back_exactly(value, place, style):
    assert number(place.format(style.format(value))) == Fraction(value)


@given(st.integers(0, 999), st.integers(1, 999), st.integers(1, 999), st.sampled_from(["", "-"]))
def test_fractions_come_back(whole, top, bottom, sign):
    expected = Fraction(f"{sign}{top}/{bottom}")
    for style in (
        f"{sign}{top}/{bottom}",
        f"{sign}{top} / {bottom}",
        rf"{sign}\frac{{{top}}}{{{bottom}}}",
        f"{sign}{top}⁄{bottom}",
    ):
        assert number(rf"\boxed{{{style}}}") == number(f"it is {style}.") == expected
    if top < bottom:
        mixed = (whole + Fraction(top, bottom)) * (-1 if sign else 1)
        assert number(f"{sign}{whole} {top}/{bottom}") == number(rf"{sign}{whole}\frac{{{top}}}{{{bottom}}}") == mixed


@given(st.text(alphabet="0123456789.,-−/$%^e{}\\ #=:x½\nans boxed", max_size=40), st.text(max_size=30))
def test_any_text_has_an_answer_or_none(text, other):
    for read in (text, other, f"the answer is {text}", rf"\boxed{{{other}"):
        assert isinstance(number(read), Fraction | None)
        assert choice(read, LABELS) in [None, *LABELS]
        assert yes_no(read) in (None, True, False)


@pytest.mark.parametrize(
    "text", ["9" * 5000, "1e999999999", "1e-401", "2 x 10^99999", "1/" + "3" * 5000, "0." + "1" * 5000]
)
def test_numbers_without_end_are_no_numbers(text):
    assert number(text) is None
    assert number(f"4 or {text}") == 4


PIECES = [
    "1,", "9", "1/", "1 ", "a1.", "answer is ", "answer is\n", "\\boxed{", "#### ", "not ", "B ", "1 = ", "\n",
    "-", " ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear_in_the_text(piece):
    many = piece * (40_000 // len(piece))
    text = f"A) answer is 1^{many}2 so x^{many}1"
    begun = time.perf_counter()
    number(text), choice(text, LABELS), yes_no(text)
    assert time.perf_counter() - begun < 5, "a square of the length would take minutes"


def test_same_is_exact():
    assert same(number("0.5"), number("1/2")) and same(number("3.00"), 3) and same(number("1e3"), number("1,000"))
    assert not same(number("0.333"), number("1/3")) and not same(None, None) and not same(None, Fraction(0))
    with pytest.raises(TypeError) as fault:
        same(Fraction(1, 2), 0.5)
    assert str(fault.value) == "same: got the float 0.5; allowed: Fraction, int or None"


# ---- labels


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is (B).", "B"),
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B) because the others sink", "B"),
        ("b because the others sink", "B"),
        ("**B**", "B"),
        ("B. The kite", "B"),
        ("option C", "C"),
        ("Out of all, I pick (c).", "C"),
        ("Option A is wrong, so option C.", "C"),
        (r"\[\boxed{\text{D}}\]", "D"),
        ("Answer: d", "D"),
        ("**Answer:** **D**", "D"),
        ("The correct answer is most likely option C, not B.", "C"),
        ("The answer is a dog (C), since A and B are cats.", "C"),
        ("The answer is A because dogs bark.", "A"),
        ("The answer is a.", "A"),
        ("A because dogs bark.", "A"),
        ("The answer is B. Wait: the answer is C.", "C"),
        ("The answer is not B but (C).", "C"),
        ("B is correct, A is not.", "B"),
        ("A is wrong; it must be D", "D"),
        ("A) cat\nB) dog\nThe answer is B", "B"),
        ("B) fits best.\nA) does not.", "B"),
        ("It can only be D here", "D"),
        ("A dog barks.", None),
        ("a dog", None),
        ("The answer is a dog.", None),
        ("A) cat\nB) dog", None),
        ("Either A or B.", None),
        ("Option A or option B", None),
        ("not B", None),
        ("The answer is not B.", None),
        ("It holds vitamin B-12 and DNA.", None),
        ("E", None),
        ("", None),
    ],
)
def test_the_label_of_a_text(text, label):
    assert choice(text, LABELS) == label


def test_labels_of_other_kinds():
    assert choice("The answer is (b)", ["a", "b"]) == "b", "as the labels write it"
    assert choice("POSITIVE!", ["negative", "positive"]) == "positive"
    assert choice("It is hardly positive or negative.", ["negative", "positive"]) is None
    assert choice("The answer is 10.", ["1", "10"]) == "10"
    assert choice("answer: 1.5", ["1", "5"]) is None and choice("answer: -1", ["1", "5"]) is None
    assert choice("no overlap", ["overlap", "no overlap"]) == "no overlap", "the longer of two that fit"
    assert choice("I think so", ["H", "I"]) is None


SAID = [
    "{}", "({})", "{}.", "[{}]", "'{}'", "{}: it floats", "Answer: {}", "the answer is ({})", "My choice: {}",
    "#### {}", "\\boxed{{{}}}", "I choose {}.", "It is ({}), as A dog said",
]  # fmt: skip


@given(st.sampled_from(LABELS), st.sampled_from(SAID))
def test_labels_come_back(label, place):
    assert choice(place.format(label), LABELS) == label
    assert choice(place.format(label.lower()), LABELS) == label


@pytest.mark.parametrize("labels", [[], ["A", ""], ["a", "A"], ["B", "B"]])
def test_labels_must_differ(labels):
    with pytest.raises(ValueError) as fault:
        choice("B", labels)
    assert str(fault.value) == f"labels: got {labels}; allowed: one or more texts that differ in more than their case"


# ---- yes and no


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", True),
        ("no.", False),
        ("No, because it sinks. Yes, I am sure.", False),
        ("No it does not.", False),
        ("**True**", True),
        ("False: it sinks.", False),
        ("Most likely yes", True),
        ("The answer is no.", False),
        ("Yes. Then again, the answer is no.", False),
        ("It floats, so yes.", True),
        ("There is no doubt: yes.", True),
        ("That it floats is false.", False),
        ("No one knows.", None),
        ("No evidence was found.", None),
        ("True stories sell.", None),
        ("It is not true.", None),
        ("It may be yes, it may be no.", None),
        ("It floats.", None),
        ("", None),
    ],
)
def test_yes_and_no(text, says):
    assert yes_no(text) is says
