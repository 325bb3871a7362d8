"""Person names (PS3.5 section 6.2, VR PN): their parts, and forms to search them by."""

import re
import unicodedata

# Letters that NFKD leaves whole although a searcher without that keyboard types something else
_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i", "ŧ": "t"}
)
_VOICED = "\u3099\u309a"  # Japanese sound marks: another letter, not an accent
_SOUNDEX = {
    letter: digit
    for digit, letters in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), start=1)
    for letter in letters
}


def groups(name: str) -> list[list[str]]:
    """Component groups (alphabetic, ideographic, phonetic), each a list of its components."""
    return [[part.strip() for part in group.split("^")] for group in name.split("=")[:3]]


def normalise(text: str) -> str:
    """Case-folded, without accents, compatibility forms and repeated spaces; ^ and = stay.

    Used on what is stored and on what is asked, so that both meet.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(
        char for char in decomposed if char in _VOICED or unicodedata.category(char) not in ("Mn", "Cf")
    )
    # Composed again, so that a Hangul syllable or a voiced kana is one character to a wildcard.
    return " ".join(unicodedata.normalize("NFC", bare).casefold().translate(_LETTERS).split())


def search_text(pn: str) -> str:
    """All component groups normalised, joined by "=", components by "^", empty ends dropped."""
    kept = ["^".join(normalise(part) for part in group).rstrip("^") for group in groups(pn)]
    return "=".join(kept).rstrip("=")


def phonetic(pn: str) -> list[str]:
    """A code for the sound of each part of a name, without repetition, in order.

    American Soundex (as the US National Archives describe it) for Latin letters; a part in another
    script is its own code.
    """
    parts = re.split(r"[\^= \-'’.,]+", search_text(pn))
    return list(dict.fromkeys(_soundex(part) for part in parts if part))


def _soundex(part: str) -> str:
    letters = [char for char in part if "a" <= char <= "z"]
    if not letters or not part[0].isascii():
        return part
    code = letters[0].upper()
    last = _SOUNDEX.get(letters[0])
    for letter in letters[1:]:
        digit = _SOUNDEX.get(letter)
        if digit and digit != last:
            code += str(digit)
        if letter not in "hw":  # these do not part two equal sounds, vowels do
            last = digit
    return code[:4].ljust(4, "0")
