"""The example task of lm-eval runs against a model that is served; lm-eval is no requirement of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.net,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("lm_eval") is None, reason='lm-eval is not installed: pip install "lm-eval[api]"'),
]
EXAMPLE = Path(__file__).parents[2] / "examples" / "lm_eval"


def test_a_task_with_local_data_is_answered_by_the_endpoint(
    tmp_path: Path, sample_model: Callable[[str], Path]
) -> None:
    env = {
        **os.environ,
        "LLM_OS_HOME": str(tmp_path / "home"),
        "LLM_OS_MANAGEMENT_PORT": "0",
        "LLM_OS_GATEWAY_PORT": "0",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }

    def run(*words: str, **more: str) -> str:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command, env={**env, **more}, cwd=EXAMPLE, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run("llm_os.cli.main", "up")
    try:
        weights = next(sample_model("smollm2").glob("*.gguf"))
        served = json.loads(run("llm_os.cli.main", "deploy", str(weights), "--name", "smollm2", "--json"))
        asked = f"model=smollm2,base_url={served['url']}/chat/completions,num_concurrent=2"
        said = run(
            *("lm_eval", "run", "--model", "local-chat-completions", "--model_args", asked, "--include_path", "."),
            *("--tasks", "llm_os_capitals", "--apply_chat_template"),
            OPENAI_API_KEY=served["key"],
        )
    finally:
        run("llm_os.cli.main", "down")
    found = re.search(r"\|named \|↑\s+\|(0\.\d+)\|", said)
    assert found is not None, said
    assert float(found.group(1)) >= 0.6
