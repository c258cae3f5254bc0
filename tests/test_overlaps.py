"""ROUGE and chrF: values worked by hand, empty texts, and what the libraries do at the edges."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.score.overlaps import chrf, corpus_chrf, rouge


def test_rouge_by_hand():
    # words in common: the red boat sails; pairs: the-red; in order: the red sails
    got = rouge("The red sails boat", "the red boat sails far away")
    assert got == pytest.approx({"rouge1": 2 * 4 / 10, "rouge2": 2 * 1 / 8, "rougeL": 2 * 3 / 10})


def test_rouge_counts_a_word_as_often_as_both_texts_hold_it():
    assert rouge("go go go", "go on")["rouge1"] == pytest.approx(2 * 1 / 5)


def test_rouge_knows_stems_and_no_case_or_punctuation():
    assert rouge("Sailing, boats!", "sails boat") == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert rouge("boat", "Boat.") == {"rouge1": 1.0, "rouge2": 0.0, "rougeL": 1.0}, "one word has no pair"
    assert rouge("k ln", "Köln")["rouge1"] == 1.0, "as documented: ASCII alone"


def test_chrf_by_hand():
    # against "abcd", "abce" has 3 of 4 letters, 2 of 3 pairs, 1 of 2 triples, 0 of 1 four: precision equals recall
    assert chrf("abce", "abcd") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)
    # "ab" has orders 1 and 2 only: precision 1 and 1, recall 2/4 and 1/3, recall weighed 2*2 times
    precision, recall = 1.0, (2 / 4 + 1 / 3) / 2
    assert chrf("ab", "abcd") == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert chrf("a b c d", "abcd") == 1.0, "spaces are left out"
    assert chrf("ABCD", "abcd") == 0.0, "case counts"
    assert chrf("Köln", "Köln") == 1.0


def test_corpus_chrf_counts_the_grams_of_all_items_together():
    # letters: 3 of 4 and 1 of 1 make 4 of 5; the single letter has no longer grams
    expected = (4 / 5 + 2 / 3 + 1 / 2 + 0) / 4
    assert corpus_chrf(["abce", "x"], ["abcd", "x"]) == pytest.approx(expected)
    assert corpus_chrf(["abce"], ["abcd"]) == pytest.approx(chrf("abce", "abcd"))


@pytest.mark.parametrize("prediction", ["", "  \n", "…"])
def test_an_empty_prediction_scores_nothing(prediction):
    assert rouge(prediction, "the boat") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    assert chrf(prediction, "the boat") == 0.0
    assert corpus_chrf([prediction, ""], ["the boat", "x"]) == 0.0


def test_faults_are_one_line():
    for reference in ("", " ", "…", "東京"):
        with pytest.raises(ValueError) as fault:
            rouge("the boat", reference)
        assert str(fault.value) == f"rouge: got the reference {reference!r}; allowed: at least one letter a-z or digit"
    with pytest.raises(ValueError) as fault:
        chrf("the boat", " ")
    assert str(fault.value) == "chrf: got the reference ' '; allowed: any text that is not empty"
    with pytest.raises(ValueError) as fault:
        corpus_chrf(["a", "b"], ["a", ""])
    assert str(fault.value) == "corpus_chrf, item 1: got the reference ''; allowed: any text that is not empty"
    for predictions, references in ((["a"], []), ([], [])):
        with pytest.raises(ValueError) as fault:
            corpus_chrf(predictions, references)
        assert str(fault.value) == (
            f"corpus_chrf: got {len(predictions)} predictions and 0 references; allowed: as many of each, at least one"
        )


def test_importing_the_module_loads_no_library():
    code = "import sys, bench.score.overlaps; assert not {'nltk', 'rouge_score', 'sacrebleu'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
