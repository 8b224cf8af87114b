"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """A number and a noun in the regular plural: ``1 record``, ``0 records``, ``2 batches``."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{number} {noun}es"
    return f"{number} {noun[:-1]}ies" if noun[-1:] == "y" and noun[-2:-1] not in "aeiou" else f"{number} {noun}s"
