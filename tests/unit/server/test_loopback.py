"""Which Host and Origin headers may reach a loopback service."""

import pytest

from llm_os.errors import PermissionDeniedError
from llm_os.server.loopback import refuse_foreign
from llm_os.spec.hosts import is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "localhost.", "api.localhost", "::1", "[::1]"]
)
def test_knows_the_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "example.com", "10.0.0.1", "0.0.0.0", "127.0.0.1.evil.example", "localhost.evil.example", "127.1"]
)
def test_takes_nothing_else_for_it(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example:7600", "user@127.0.0.1@evil.example", "[::1", "127.0.0.1@evil.example"]
)
def test_refuses_a_host_that_is_not_loopback(host: str | None) -> None:
    with pytest.raises(PermissionDeniedError, match="Host"):
        refuse_foreign(host, None)


@pytest.mark.parametrize(
    "origin", ["null", "", "https://evil.example", "http://localhost.evil.example", "file://", "http://[::1"]
)
def test_refuses_a_page_of_another_site(origin: str) -> None:
    with pytest.raises(PermissionDeniedError, match="origin"):
        refuse_foreign("127.0.0.1:7601", origin)


def test_lets_programs_and_local_pages_in() -> None:
    refuse_foreign("127.0.0.1:7601", None)
    refuse_foreign("[::1]:7601", "http://localhost:3000")
    refuse_foreign("llm-os", None, check_host=False)
