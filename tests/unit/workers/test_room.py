"""What a replica can hold: seats come back however a request ends, and a window says which number was too large."""

import pytest

from llm_os.errors import InvalidOptionError, OverloadedError
from llm_os.workers.requests import ChatRequest
from llm_os.workers.room import Seats, Window

ASKED = ChatRequest(messages=({"role": "user", "content": "Hi"},))


def test_a_seat_is_refused_when_all_are_taken_and_comes_back_after_an_error() -> None:
    seats = Seats(1)
    with pytest.raises(OverloadedError, match="1 requests are in this replica"), seats.one(), seats.one():
        pass
    with seats.one():
        pass


def test_an_answer_gets_what_the_prompt_leaves_and_never_more_than_was_asked_for() -> None:
    window = Window(context=10, vocabulary=5)
    assert window.answer(ASKED, 4) == 6
    assert window.answer(ChatRequest(prompt="x", max_tokens=2), 4) == 2
    for request, param in ((ASKED, "messages"), (ChatRequest(prompt="x"), "prompt")):
        with pytest.raises(InvalidOptionError, match="10 tokens or more, the context has room for 10") as caught:
            window.answer(request, 10)
        assert caught.value.details["param"] == param
    with pytest.raises(InvalidOptionError, match="no token that this model knows"):
        window.answer(ASKED, 0)


def test_an_id_beyond_the_vocabulary_is_named_where_its_size_is_known() -> None:
    Window(context=10, vocabulary=0).check("tokens", [7])
    Window(context=10, vocabulary=8).check("tokens", [7])
    with pytest.raises(InvalidOptionError, match="no token 8: the model has 8") as caught:
        Window(context=10, vocabulary=8).check("tokens", [1, 8])
    assert caught.value.details["param"] == "tokens"
