"""Rows that hold a chat: the last message is the response, and what stands before it the instruction."""

from __future__ import annotations

from typing import Any

from bench.errors import UserFault

SPEAKERS = {"user": "User", "assistant": "Assistant"}
"""Role -> what a turn is marked by, where there are several before the response."""
ALLOWED = (
    "a list of messages, each with a role (system, user, assistant) and a text as content, the last the assistant's"
)


def instructions(column: list[Any], index: list[int], place: str, name: str) -> tuple[list[str], list[str]]:
    """The instruction and the response of every row of a column of chats (`index`: each value's row number).

    A message of the system comes first, as a paragraph of its own. A single question stands as it is; of several turns
    each says whose it is. Raises `UserFault` for what is no chat that ends with an answer.
    """
    asked, told = [], []
    for row, chat in zip(index, column, strict=True):
        if fault := wrong(chat):
            raise UserFault(f"{place}{row}: column '{name}' holds {fault}; allowed: {ALLOWED}")
        *before, last = chat
        parts = [one["content"].strip() for one in before if one["role"] == "system"]
        turns = [one for one in before if one["role"] != "system"]
        if len(turns) == 1:
            parts.append(turns[0]["content"].strip())
        else:
            parts.append("\n".join(f"{SPEAKERS[one['role']]}: {one['content'].strip()}" for one in turns))
        asked.append("\n\n".join(part for part in parts if part))
        told.append(last["content"].strip())
    return asked, told


def wrong(chat: Any) -> str | None:
    """What a value is in place of a chat, in words; None where it is one."""
    if not isinstance(chat, list):
        return "null" if chat is None else f"{type(chat).__name__}, not a list"
    for number, one in enumerate(chat, start=1):
        if not isinstance(one, dict) or not {"role", "content"} <= one.keys():
            return f"message {number} without role and content"
        if one["role"] not in ("system", *SPEAKERS):
            return f"message {number} of role '{one['role']}'"
        if not isinstance(one["content"], str):
            return f"message {number} whose content is {type(one['content']).__name__}"
    if not any(one["role"] == "user" for one in chat):
        return "no message of the user"
    return None if chat[-1]["role"] == "assistant" else f"a last message of role '{chat[-1]['role']}'"
