"""Engines side by side, as people write them."""

import pytest

from llm_os.client.members import changed, named, wished
from llm_os.errors import InvalidOptionError


def test_one_engine_or_none_is_written_as_ever() -> None:
    assert wished(None, {"context": 5}) == {"engine": None, "options": {"context": 5}}
    assert wished("torch", {}) == wished(["torch"], {}) == {"engine": "torch", "options": {}}


def test_an_option_is_for_all_engines_or_for_the_one_that_it_names() -> None:
    options = {"context": 4096, "llamacpp.parallel": 8, "openvino": {"context": 512}}
    members = wished(["openvino", "llamacpp"], options)["members"]
    assert members == [
        {"engine": "openvino", "options": {"context": 512}},
        {"engine": "llamacpp", "options": {"context": 4096, "parallel": 8}},
    ]


@pytest.mark.parametrize(
    ("engines", "options", "said"),
    [
        (["a", "a"], {}, "named twice"),
        (["a", "b"], {"c.x": 1}, "'c.x' is for the engine c, which is not among a, b"),
        (["a", 3], {}, "An engine is a name, not 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(engines: list[str], options: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidOptionError, match=said):
        wished(engines, options)


def test_an_update_names_what_changes() -> None:
    assert changed(None, {}, ["a", "b"]) == {"engine": None, "options": None}
    assert changed("a", {}, ["a", "b"]) == {"engine": "a", "options": None}
    assert changed(None, {"x": 1}, ["a"]) == {"engine": None, "options": {"x": 1}}
    both = changed(None, {"b.x": 1}, ["a", "b"])
    assert both == {"members": [{"engine": "a", "options": {}}, {"engine": "b", "options": {"x": 1}}]}
    assert named(both) == ("a", "b")
    assert named(changed(None, {}, ["a"])) == (None,)
