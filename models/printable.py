"""Text that others wrote, made safe to print: it cannot control a terminal, turn its direction, or begin a line."""

import re
import unicodedata
from functools import lru_cache

MAX_QUOTED = 200
"""Characters of a text from elsewhere that is quoted in a message."""

_INVISIBLE = frozenset(
    (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0000, 0xE1000),
    )
)
"""Characters without a shape that are not in one of the categories below (Unicode's Default_Ignorable_Code_Point)."""
_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))
"""Control, format (also the marks of direction), surrogate, unassigned, private use, line and paragraph separators."""
_JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: Persian words need them. They are kept next to a letter of the Arabic script."""
_ARABIC = re.compile("[\u0620-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")
_SAFE = re.compile(r"[ -~]*")


def printable(text: str) -> str:
    """The text in one line. Characters that control a terminal, are invisible or change the direction are escaped as
    in Python (``\\x1b``, ``\\u202e``).
    """
    if _SAFE.fullmatch(text):
        return text
    return "".join(_shown(text, place) for place in range(len(text)))


def quoted(text: str, most: int = MAX_QUOTED) -> str:
    """Somebody else's words within a message of ours: at most ``most`` characters, printable, in quotation marks.

    Runs of spaces become one: they could move the rest of the text to the beginning of a terminal's next line.
    """
    short = re.sub(" {2,}", " ", text[: 4 * most])
    short = short if len(short) <= most else short[:most] + "…"
    return '"' + printable(short).replace('"', "'") + '"'


def _shown(text: str, place: int) -> str:
    character = text[place]
    if character in _JOINERS:
        around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
        return character if _ARABIC.search(around) else _escaped(character)
    return _escaped(character) if _is_unsafe(character) else character


@lru_cache(maxsize=4096)
def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _CATEGORIES or ord(character) in _INVISIBLE


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
