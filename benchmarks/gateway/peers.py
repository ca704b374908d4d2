"""Other ways to a replica, each started as its makers say, before a replica. Imports nothing of ours.

nginx asks the replica over its Unix socket, as the gateway does; the others know TCP alone.

    nginx          apt-get install nginx; one worker, kept-alive connections, no buffering
    vllm-router    pip install vllm-router; round robin
    sglang-router  pip install sglang-router; cache-aware, its default
    litellm        pip install "litellm[proxy]"; one worker, no master key

Packages may lie in an environment of their own, whose Python is given.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp

BODY = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
READY_WITHIN = 150.0
"""Seconds. LiteLLM's proxy takes half a minute on two free cores, and more on busy ones."""
ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
"""Of LiteLLM: it asks the network for prices, and does not start without a key, otherwise. It listens on loopback."""

NGINX = """daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream replica {{ server unix:{unix}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{
      proxy_pass http://replica; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
LITELLM = """model_list:
  - model_name: chat
    litellm_params: {{model: openai/chat, api_base: "http://127.0.0.1:{replica}/v1", api_key: none}}
"""


def nginx(folder: Path, python: str, replica: int, port: int, unix: str) -> list[str]:
    del python, replica
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, unix=unix, port=port))
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]


def vllm_router(folder: Path, python: str, replica: int, port: int, unix: str) -> list[str]:
    del folder, unix
    return _router(python, "vllm_router.launch_router", replica, port, "round_robin")


def sglang_router(folder: Path, python: str, replica: int, port: int, unix: str) -> list[str]:
    del folder, unix
    return _router(python, "sglang_router.launch_router", replica, port, "cache_aware")


def _router(python: str, module: str, replica: int, port: int, policy: str) -> list[str]:
    return [
        *(python, "-m", module, "--worker-urls", f"http://127.0.0.1:{replica}", "--host", "127.0.0.1"),
        *("--port", str(port), "--prometheus-port", str(free_port()), "--policy", policy, "--log-level", "error"),
    ]


def litellm(folder: Path, python: str, replica: int, port: int, unix: str) -> list[str]:
    del unix
    (folder / "litellm.yaml").write_text(LITELLM.format(replica=replica))
    command = str(Path(python).with_name("litellm"))
    return [command, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]


PEERS: dict[str, Callable[[Path, str, int, int, str], list[str]]] = {
    "nginx": nginx,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "litellm": litellm,
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def begun(
    name: str, folder: Path, python: str, replica: int, unix: str
) -> tuple[asyncio.subprocess.Process, str]:
    """The peer's process and its address, once it answers a chat. Raises RuntimeError with its last words."""
    port = free_port()
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        command = PEERS[name](folder, python, replica, port, unix)
        environment = {**os.environ, **ENVIRONMENT}
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out, env=environment)
    url = f"http://127.0.0.1:{port}"
    until = asyncio.get_running_loop().time() + READY_WITHIN
    async with aiohttp.ClientSession() as session:
        while process.returncode is None and asyncio.get_running_loop().time() < until:
            try:
                # Routers take nothing that does not say it is JSON.
                async with session.post(url + "/v1/chat/completions", json=BODY) as answer:
                    if answer.status == 200:
                        return process, url
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    if process.returncode is None:
        process.kill()
    await process.wait()
    raise RuntimeError(f"{name} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
