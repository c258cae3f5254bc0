"""The bundled rows for instructions, preferences, ratings and worked answers, as the tests of them read them."""

from __future__ import annotations

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "suites" / "samples"
HELD_OUT = {"classify_tone": ["angry", "grateful", "worried", "amused"], "check_claim": ["true", "false"]}
"""Kinds of instruction that stand in the test split only, with their labels."""
WORDS = re.compile(r"[a-z0-9']+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def load(name: str) -> list[dict]:
    """The rows of a file, its answers and reasoning in columns of their own."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    apart = {"commonsense": with_choices, "word_problems": with_rationale}.get(name, dict)
    return [apart(row) for row in rows]


def with_rationale(row: dict) -> dict:
    """Reasoning and answer stand in one column, as in GSM8K's rows."""
    rationale, answer = row["answer"].split("\n#### ")
    return row | {"rationale": rationale, "answer": answer}


def with_choices(row: dict) -> dict:
    """Options stand in the question, one a line, as in ECQA's rows, and the answer is one of them: taken apart again."""
    question, listed = row["question"].split("\nOptions:\n")
    choices = [line.removeprefix("- ") for line in listed.split("\n")]
    return row | {"question": question, "choices": choices, "answer": choices.index(row["answer"])}


def words(text: str) -> list[str]:
    """Its words, without case and punctuation."""
    return WORDS.findall(text.lower())


def split(rows: list[dict], name: str) -> list[dict]:
    """The rows of one split, in file order."""
    return [row for row in rows if row["split"] == name]


def column(name: str, of: str) -> list[str]:
    """What a column holds, where it holds anything."""
    return [row[of] for row in load(name) if row[of]]
