"""How tables look."""

from __future__ import annotations

import pytest

from llm_os.cli.render import print_table


def test_brackets_in_a_cell_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("WHAT", "CURE"), [("engine", "pip install 'llm-os[llamacpp]'")], "nothing")
    assert "pip install 'llm-os[llamacpp]'" in capsys.readouterr().out
