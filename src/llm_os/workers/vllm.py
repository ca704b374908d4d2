"""Serves a chat model in safetensors with vLLM's server, which this worker starts; must not know HTTP or the kernel.

Nothing of vLLM is imported: its program may lie in another environment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os import programs
from llm_os.errors import UnavailableError, UnsupportedModelError
from llm_os.models import settings
from llm_os.models.formats import inspect
from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend
from llm_os.workers.child import SOCKET, Child
from llm_os.workers.requests import ChatRequest
from llm_os.workers.served import ChildBridge
from llm_os.workers.serving import main

log = logging.getLogger("llm_os.worker")

WHO = "vLLM"
MODEL = "served"
"""The model's name there."""
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""It fetches nothing and tells nobody."""


class VllmBackend(ChildBridge):
    """Speaks to a `vllm serve`.

    Attributes:
        ends: ids that end an answer by the model's own settings, which the server is not shown.
    """

    ends: tuple[int, ...] = ()

    async def template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        given = [dict(message) for message in messages]
        return await self._tokens({"messages": given, "add_generation_prompt": True})

    async def encode(self, text: str) -> list[int]:
        return await self._tokens({"prompt": text, "add_special_tokens": True})

    async def _tokens(self, body: Mapping[str, Any]) -> list[int]:
        told = await self.upstream.post("/tokenize", {"model": MODEL, **body})
        return [int(one) for one in told["tokens"]]

    async def decode(self, ids: Sequence[int]) -> str:
        return str((await self.upstream.post("/detokenize", {"model": MODEL, "tokens": list(ids)}))["prompt"])

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        body = super().asked(request, path)
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        body |= {"top_k": request.top_k} if request.top_k else {}
        body |= {"repetition_penalty": request.repetition_penalty} if request.repetition_penalty != 1.0 else {}
        body |= {"stop_token_ids": list(self.ends)} if self.ends else {}
        return body


def command(program: Path, model: Path, options: Mapping[str, Any], *, context: int) -> list[str]:
    """The command line of the server. It listens on a Unix socket in its folder; code of models is never run."""
    argv = [str(program), "serve", str(model), "--served-model-name", MODEL, "--uds", SOCKET]
    argv += ["--generation-config", "vllm"]  # the model's file is read here, for all engines alike
    argv += ["--enable-prompt-tokens-details"]  # how much of a prompt was in its cache
    argv += ["--dtype", str(options["dtype"]), "--max-model-len", str(context)]
    argv += ["--max-num-seqs", str(options["max_batch"]), "--disable-uvicorn-access-log"]
    if options["gpus"]:
        argv += ["--tensor-parallel-size", str(options["gpus"])]
        argv += ["--gpu-memory-utilization", str(options["gpu_memory_utilization"])]
    return argv


def load(call: ServeCall, spec: AttemptSpec) -> Backend:
    """Find the program; `begin` starts it.

    Raises:
        BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: no safetensors, or no chat template. UnavailableError: there is no vLLM.
    """
    folder, options = Path(call.model.path), dict[str, Any](call.options)
    facts = inspect(folder)
    if facts["format"] != "safetensors":
        raise UnsupportedModelError(f"vLLM serves safetensors, this is {facts['format']}.", hint="Use another engine.")
    if not facts["chat_template"]:
        raise UnsupportedModelError("The model has no chat template.", hint="Take an instruction-tuned model.")
    program = programs.find("vllm", engine=call.engine, environment=options.get("environment"))
    if program is None:
        raise UnavailableError("There is no vLLM.", hint="See docs/how-to/choose-an-engine.md.")
    context = min(int(options["max_model_len"]), int(str(facts["context_length"])) or int(options["max_model_len"]))
    argv = command(program.path, folder, options, context=context)
    log.info("%s of %s: %s", program.path, program.where, " ".join(argv[1:]))
    gib = max(1, int(options["cache_memory"]) // 2**30)
    env = {**ENVIRONMENT, **({} if options["gpus"] else {"VLLM_CPU_KVCACHE_SPACE": str(gib)})}
    child = Child(WHO, argv, Path(spec.cwd) / "scratch" / "engine", env)
    backend = VllmBackend(
        child,
        model=MODEL,
        most=int(options["max_batch"]) * 2,
        context=context,
        vocabulary=int(str(facts["vocabulary"])),
    )
    backend.ends = settings.read(folder).eos
    return backend


if __name__ == "__main__":
    main(load)
