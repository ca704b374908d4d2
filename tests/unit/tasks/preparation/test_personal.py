"""Personal data is found by what numbers are, not by how they look; what only looks like it stays."""

from __future__ import annotations

import re
import time
from collections import Counter
from itertools import pairwise

import pytest

from llm_os.tasks.datasets.sentic_data import read
from llm_os.tasks.preparation.personal import IBAN_LENGTHS, KINDS, find, regions_of, replace


def found(text: str, **options: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(kind, text[begin:end]) for begin, end, kind in find(text, **options)]


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("write to anna.li+x@mail.example.co.uk.", "email", "anna.li+x@mail.example.co.uk"),
        ("我的邮箱abc_1@qq.com请联系", "email", "abc_1@qq.com"),
        ("我的邮箱ａｂｃ＠ｑｑ．ｃｏｍ", "email", "ａｂｃ＠ｑｑ．ｃｏｍ"),
        ("电话13800138000联系", "phone", "13800138000"),
        ("电话：010-62781234。", "phone", "010-62781234"),
        ("打１３８００１３８０００吧", "phone", "１３８００１３８０００"),
        ("call (650) 253-0000 now", "phone", "(650) 253-0000"),
        ("ring 020 7946 0958, please", "phone", "020 7946 0958"),
        ("from abroad +49 30 123456", "phone", "+49 30 123456"),
        ("身份证110101199003077758", "id", "110101199003077758"),
        ("身份证11010519491231002x号", "id", "11010519491231002x"),
        ("my SSN is 123-45-6789.", "ssn", "123-45-6789"),
        ("pay DE89 3704 0044 0532 0130 00 today", "iban", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
        ("card 4111 1111 1111 1111.", "card", "4111 1111 1111 1111"),
        ("378282246310005", "card", "378282246310005"),
        ("卡号6222021234567890128", "card", "6222021234567890128"),
    ],
)
def test_finds_exactly_the_number(text: str, kind: str, number: str) -> None:
    assert found(text) == [(kind, number)]


@pytest.mark.parametrize(
    "text",
    [
        "110101199003077759",  # wrong check sign
        "110101199002307753",  # 30 February
        "900-12-3456 000-12-3456 666-12-3456 123-00-4567 123-45-0000",  # never given out
        "DE88 3704 0044 0532 0130 00",  # mod 97
        "ZZ89370400440532013000",  # no such country
        "4111 1111 1111 1112",  # Luhn
        "1234567890123452",  # Luhn holds, but no network begins so
        "order 20191231001 of 2019-12-31 12:00:00",
        "1,234,567.89 and 3.1415926535897932",
        "ISBN 978-3-16-148410-0",
        "from 1990 to 2000 2010 2020",
        "192.168.100.200",
        "me@localhost and a@b, @handle, user@@example.com",
        "一二三四五六七八九〇一",
    ],
)
def test_leaves_what_only_looks_like_it(text: str) -> None:
    assert found(text) == []


def test_places_do_not_overlap_and_the_first_kind_keeps_its_place() -> None:
    text = "13800138000@163.com 13800138000 4111-1111-1111-1111 110101199003077758"
    spans = find(text)
    assert [span.kind for span in spans] == ["email", "phone", "card", "id"]
    assert all(a.end <= b.begin for a, b in pairwise(spans))
    assert replace(text, spans) == "[EMAIL] [PHONE] [CARD] [ID]"


def test_kinds_and_regions_narrow_the_search() -> None:
    text = "a@b.com, 13800138000, (650) 253-0000"
    assert found(text, kinds=("email",)) == [("email", "a@b.com")]
    assert found(text, regions=("CN",)) == [("email", "a@b.com"), ("phone", "13800138000")]
    assert found("+86 138 0013 8000", regions=()) == [("phone", "+86 138 0013 8000")]
    assert regions_of("zh")[0] == "CN"
    assert regions_of("unknown") == ("US", "GB", "CN")
    assert set(KINDS) == {"email", "phone", "id", "ssn", "iban", "card"}
    assert len(IBAN_LENGTHS) > 80


def test_every_single_wrong_digit_of_an_identity_number_or_iban_is_noticed() -> None:
    for right, kind in (("11010519491231002X", "id"), ("DE89370400440532013000", "iban"), ("4111111111111111", "card")):
        assert found(right) == [(kind, right)]
        for place in range(4, len(right) - 1):
            for digit in "0123456789":
                wrong = right[:place] + digit + right[place + 1 :]
                assert (kind, wrong) not in found(wrong, kinds=(kind,)) or wrong == right


def test_all_shipped_texts_are_searched_in_a_moment_and_what_is_found_is_right() -> None:
    kinds: dict[str, Counter[str]] = {}
    mobiles = 0
    begin = time.process_time()
    for language in ("en", "zh"):
        hits = [(kind, text) for row in read(language) for kind, text in found(str(row["text"]))]
        kinds[language] = Counter(kind for kind, _ in hits)
        mobiles += sum(1 for kind, text in hits if kind == "phone" and re.fullmatch(r"1[3-9]\d{9}", text))
    spent = time.process_time() - begin
    assert spent < 8, f"{spent:.1f} s for 41,066 texts"
    assert kinds == {"en": {"email": 1, "phone": 3}, "zh": {"email": 5, "phone": 18}}  # read one by one
    assert mobiles == 5


def test_hostile_texts_take_linear_time() -> None:
    begin = time.process_time()
    for part in ("a.", "a@", "1 ", "1-", "DE12 ", "a@b."):
        find(part * 20_000)
    assert time.process_time() - begin < 10
