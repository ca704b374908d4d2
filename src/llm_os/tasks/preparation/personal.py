"""Personal data in a text: mail addresses, phone numbers, identity and account numbers. Knows no row and no step.

What has a checksum is checked by it, so that order numbers and prices stay. Not found: names, postal addresses, and
numbers that are written as words. Sources: GB 11643-1999 with ISO/IEC 7064 MOD 11-2 (Chinese resident identity
number), ISO 13616 (IBAN, mod 97), ISO/IEC 7812 (cards, Luhn), the SSA's rules for social security numbers, and the
metadata of `phonenumbers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Literal, NamedTuple

Name = Literal["email", "iban", "id", "card", "ssn", "phone"]
KINDS: tuple[Name, ...] = ("email", "iban", "id", "card", "ssn", "phone")
"""In the order in which they are looked for: a place belongs to the first kind that claims it."""
REGIONS = {
    "en": ("US", "GB"),
    "zh": ("CN", "TW", "HK"),
    "de": ("DE", "AT", "CH"),
    "fr": ("FR", "BE", "CH"),
    "es": ("ES", "MX"),
    "it": ("IT",),
    "pt": ("BR", "PT"),
    "nl": ("NL", "BE"),
    "pl": ("PL",),
    "ru": ("RU",),
    "ja": ("JP",),
    "ko": ("KR",),
}
"""Where numbers without a country code are dialled, by language."""


class Span(NamedTuple):
    """`text[begin:end]` is of that kind (one of `KINDS`)."""

    begin: int
    end: int
    kind: str


def regions_of(language: str) -> tuple[str, ...]:
    """Countries whose national phone numbers are looked for; the English and Chinese ones where nobody said."""
    return REGIONS.get(language, ("US", "GB", "CN"))


def find(text: str, regions: Sequence[str] = ("US", "GB", "CN"), kinds: Sequence[str] = KINDS) -> list[Span]:
    """Personal data, from left to right, without overlaps.

    Args:
        regions: ISO 3166 codes of countries whose phone numbers need no country code. Numbers with `+` are always
            found.
        kinds: which of `KINDS` to look for.
    """
    plain = text.translate(FULL_WIDTH)
    found: list[Span] = []
    for kind in KINDS:
        if kind in kinds:
            spans = phones(plain, regions) if kind == "phone" else FINDERS[kind](plain)
            for begin, end in spans:
                found.append(Span(begin, end, kind))
                plain = plain[:begin] + TAKEN * (end - begin) + plain[end:]
    return sorted(found)


def replace(text: str, spans: Sequence[Span]) -> str:
    """The text with `[EMAIL]`, `[PHONE]`, ... in the places that `find` gave."""
    parts, at = [], 0
    for begin, end, kind in spans:
        parts += [text[at:begin], f"[{kind.upper()}]"]
        at = end
    return "".join([*parts, text[at:]])


def masked(value: str, kind: str) -> str:
    """A sample that may be shown: `j•••@•••.org`, `•••-•••-••89`; nobody can be reached or named by it."""
    if kind == "email":
        return f"{value[0]}•••@•••.{value.rpartition('.')[2]}"
    return re.sub(r"[^\W_]", "•", value[:-2]) + value[-2:]


def excerpt(text: str, regions: Sequence[str], length: int = 60) -> str:
    """The beginning of a text on one line, with placeholders: for reports, logs and errors."""
    head = text[: 40 * length]  # long enough that what is cut in two here is never shown
    plain = " ".join(replace(head, find(head, regions)).split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"


FULL_WIDTH = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20}
"""Full-width signs become plain ones, one for one, so that places stay as they are."""
TAKEN = "\x00"
"""Stands where something was found already."""

MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9](?:[A-Za-z0-9._%+'-]{0,62}[A-Za-z0-9_+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9@-])"
)
IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}(?: ?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
RESIDENT = re.compile(r"(?<![A-Za-z0-9])[1-9]\d{5}(?:18|19|20)\d{9}[\dXx](?![A-Za-z0-9])")
CARD = re.compile(r"(?<![A-Za-z0-9.,-])\d(?:[ -]?\d){12,18}(?![A-Za-z0-9-]|[.,]\d)")
SOCIAL = re.compile(r"(?<![A-Za-z0-9-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![A-Za-z0-9-])")
DIALLED = re.compile(r"\d(?:[^\w\x00]{0,3}\d){6}")
"""Seven digits that are close to each other: only then the slow search for phone numbers is worth it."""

IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO",
        "16": "BE",
        "18": "DK FI FO GL NL",
        "19": "MK SI",
        "20": "AT BA EE KZ LT LU XK",
        "21": "CH HR LI LV",
        "22": "BG BH CR DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST",
        "26": "IS TR",
        "27": "BI FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HU LB NI PL SV",
        "29": "BR EG PS QA UA",
        "30": "JO KW MU",
        "31": "MT SC",
        "32": "LC",
        "33": "RU",
    }.items()
    for country in countries.split()
}
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""2 to the power of 17 ... 1, modulo 11."""


def mails(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        for match in MAIL.finditer(text):
            if ".." not in match[0]:
                yield match.span()


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """Also where words follow: the country says how long the number is."""
    for match in IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[1].upper(), 0)
        end = match.start()
        for _ in range(length):
            end += 1 + (text[end : end + 1] == " ")
        number = text[match.start() : end].replace(" ", "").upper()
        if length and end <= match.end() and not text[end : end + 1].isalnum() and mod97(number):
            yield match.start(), end


def residents(text: str) -> Iterator[tuple[int, int]]:
    for match in RESIDENT.finditer(text):
        if resident(match[0]):
            yield match.span()


def cards(text: str) -> Iterator[tuple[int, int]]:
    for match in CARD.finditer(text):
        number = re.sub("[ -]", "", match[0])
        if issued(number) and luhn(number):
            yield match.span()


def socials(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in SOCIAL.finditer(text))


def phones(text: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Numbers that exist by the numbering plan of their country; those of premium services are nobody's."""
    if not DIALLED.search(text):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher, PhoneNumberType, number_type

    taken = 0
    spans: set[tuple[int, int]] = set()
    for region in regions or ("ZZ",):
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            if number_type(match.number) != PhoneNumberType.PREMIUM_RATE:
                unbalanced = match.raw_string.startswith("(") and ")" not in match.raw_string
                spans.add((match.start + unbalanced, match.end))
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if begin >= taken:
            taken = end
            yield begin, end


def mod97(iban: str) -> bool:
    """ISO 13616: the number with its first four signs at the end, letters as 10 to 35, is 1 modulo 97."""
    return int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97 == 1


def resident(number: str) -> bool:
    """GB 11643: a birthday that exists, and the check sign of ISO/IEC 7064 MOD 11-2."""
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    left = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, number, strict=False)) % 11
    return number[17].upper() == "10X98765432"[left]


def luhn(number: str) -> bool:
    """ISO/IEC 7812: every second digit from the right doubled, its digits added; the sum ends with 0."""
    return sum(sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(reversed(number))) % 10 == 0


def issued(number: str) -> bool:
    """Whether a card network gives out numbers that begin so and are that long."""
    two, four, size = int(number[:2]), int(number[:4]), len(number)
    return (
        (number[0] == "4" and size in {13, 16, 19})  # Visa
        or (size == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))  # Mastercard
        or (size == 15 and two in {34, 37})  # American Express
        or (two == 62 and 16 <= size <= 19)  # UnionPay
        or (size == 16 and (four == 6011 or two == 65 or 644 <= int(number[:3]) <= 649))  # Discover
        or (size == 16 and 3528 <= four <= 3589)  # JCB
        or (size == 14 and (two in {36, 38, 39} or 300 <= int(number[:3]) <= 305))  # Diners
    )


FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "email": mails,
    "iban": ibans,
    "id": residents,
    "card": cards,
    "ssn": socials,
}
