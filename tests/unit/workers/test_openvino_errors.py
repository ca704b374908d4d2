"""What openvino-genai says of a file that it cannot open becomes a cause, its own words and a next step."""

from pathlib import Path

import pytest

from llm_os.workers.openvino import cannot_open

READER = "Check 'data != nullptr' failed at /home/x/src/cpp/src/gguf_utils/gguf.cpp:84:\n[load_gguf] "


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (READER + "gguf_tensor_to_f16 failed\n", "does not know the form of some of the weights"),
        ("Unsupported model architecture 'gemma3'", "does not know models of this architecture"),
        ("std::bad_alloc: cannot allocate 4 GB", "not enough memory"),
        ("something new", "something new"),
    ],
)
def test_a_file_that_cannot_be_opened_is_explained(said: str, cause: str) -> None:
    error = cannot_open(Path("/store/sha256-abc/chat.Q5_0.gguf"), RuntimeError(said))
    assert "chat.Q5_0.gguf" in error.message
    assert cause in error.message
    assert said.split()[-1] in error.message, "its own words stay"
    assert "\n" not in error.message
    assert "--engine llamacpp" in error.hint
