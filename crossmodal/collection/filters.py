"""What is checked of a filter before the table evaluates it, and how its refusal is worded.

The table's own parser stops reading after a complete expression and takes ``"name"`` for a string, where SQL
has a column; both would answer a mistyped filter with wrong rows and no word.
"""

import re
from collections.abc import Mapping

from crossmodal.errors import QueryError

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|[()?]|\$\w*|['"`]""")


def enclosed(where: str, columns: Mapping[str, str]) -> str:
    """Give the filter in parentheses, so that it is read to its end.

    :raises QueryError: when its parentheses or quotes do not match, or something stands in double quotes.
    """
    depth = 0
    for token in _TOKEN.findall(where):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            raise refusal(where, "a closing parenthesis has no opening one.", columns)
        if token[0] in "?$":
            raise refusal(where, f"{token} stands for a value that is not given; write the value.", columns)
        if token in ("'", '"', "`"):
            raise refusal(where, f"a quote {token} is not closed.", columns)
        if token.startswith('"'):
            name = token[1:-1]
            raise refusal(where, f"write {token} as `{name}` for a column, as '{name}' for a text.", columns)
    if depth:
        raise refusal(where, "a parenthesis is not closed.", columns)
    if not where.strip():
        raise refusal(where, "it is empty.", columns)
    return f"({where})"


def refusal(where: str, reason: str, columns: Mapping[str, str]) -> QueryError:
    """Give the error for a filter: what is wrong with it, and what it may name."""
    named = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    if missing := re.search(r"No field named (\S+?)\.(?:\s|$)", reason):
        return QueryError(f"Filter {where!r} names an unknown column {missing[1]}. Columns: {named}")
    reason = re.sub(r",? ?(location: )?/?[\w./\-]*\.rs:\d+(:\d+)?,?", "", reason)
    reason = re.sub(r"SELECT 1 FROM t WHERE ", "", reason.replace("Invalid user input: ", ""))
    return QueryError(
        f"Filter {where!r} cannot be used: {' '.join(reason.split())[:300].rstrip('.')}. Columns: {named}"
    )
