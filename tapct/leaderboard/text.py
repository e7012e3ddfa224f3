"""Text of third parties (names, notices, paths) as each format shows it: as text, whatever it holds."""

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tapct import numeric
from tapct.records.paths import without_folders

LONGEST_NAME = 100
"""As long as a name in a record may be."""

_FORMULA = tuple("=+-@\t\r")
"""What a spreadsheet takes for the start of a formula (OWASP, "CSV Injection")."""

_MARKDOWN = frozenset(r"\`*_[]|~$")
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "—": "---",
    "×": r"$\times$",
    "†": r"\textdagger{}",
    "·": r"$\cdot$",
}


def visible(text: str) -> str:
    """Returns text without what cannot be seen: controls, zero widths, turns of the writing direction."""
    spaced = ("\N{SPACE}" if c.isspace() or unicodedata.category(c) == "Zs" else c for c in text)
    return "".join(c for c in spaced if c.isprintable())


def plain(text: str, longest: int | None = None) -> str:
    """Returns visible text, with single spaces between words and none around them.

    Args:
        text: The text.
        longest: Characters to keep at most; a cut ends in an ellipsis.
    """
    seen = " ".join(visible(text).split())
    return seen if longest is None or len(seen) <= longest else f"{seen[: longest - 1].rstrip()}…"


def for_page(value: Any) -> Any:
    """Returns what a template puts out: of text what can be seen, without the folders of somebody's machine."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else without_folders(visible(value))


def for_spreadsheet(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula: with an apostrophe in front where one would."""
    seen = plain(text)
    return f"'{seen}" if seen.startswith(_FORMULA) else seen


def for_markdown(text: str) -> str:
    """Returns text that Markdown, with tables and automatic links, shows as it is."""
    escaped = "".join(f"\\{c}" if c in _MARKDOWN else c for c in plain(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("://", r":\/\/").replace("www.", r"www\.").replace("WWW.", r"WWW\.")


def for_latex(text: str) -> str:
    """Returns text that LaTeX shows as it is."""
    return "".join(_TEX.get(c, c) for c in plain(text))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows of the same columns as CSV: numbers of twelve digits, undefined is empty, text is no formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in map(numeric.rounded, rows):
        writer.writerow(
            {key: for_spreadsheet(value) if isinstance(value, str) else value for key, value in row.items()}
        )
    return text.getvalue()
