"""An adapter takes the place of a model that openvino serves: merged, as GGUF, compared, and no request fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import pytest_asyncio

from llm_os.models.convert import gguf_to_safetensors
from llm_os.models.gguf_writing import write_gguf
from llm_os.models.widen import BELOW_8, widen
from llm_os.testing.adapters import write_adapter
from llm_os.testing.home_bed import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("heavy")]
PATH = "/v1/deployments/chat"


@pytest_asyncio.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home(tmp_path)
    try:
        await home.start()
        yield home
    finally:
        await home.down()


def test_a_real_model_that_goes_there_and_back_is_the_same_to_the_last_bit(
    tmp_path: Path, sample_model: Callable[[str], Path]
) -> None:
    (file,) = sample_model("smollm2").glob("*.gguf")
    (tmp_path / "floats").mkdir()
    gguf_to_safetensors(file, tmp_path / "floats")
    write_gguf(tmp_path / "floats", file, tmp_path / "back.gguf")
    widen(file, tmp_path / "wide.gguf", BELOW_8)
    back, wide = (gguf.GGUFReader(str(tmp_path / f"{name}.gguf")) for name in ("back", "wide"))
    told, kept = ({one.name: one for one in reader.tensors} for reader in (back, wide))
    assert told.keys() == kept.keys()
    for name, one in kept.items():
        assert told[name].tensor_type == one.tensor_type, name
        assert np.array_equal(told[name].data, one.data), name
    fields = {name: field.contents() for name, field in wide.fields.items() if not name.startswith("GGUF.")}
    assert {name: back.fields[name].contents() for name in fields} == fields


async def test_an_adapter_is_served_by_openvino_in_the_place_of_its_base(
    home: Home, tmp_path: Path, sample_model: Callable[[str], Path]
) -> None:
    await home.fetch("smollm2", "smollm2")
    base = (await home.get("/v1/models/smollm2@1"))["manifest"]
    spec = {"task": "sources/convert", "inputs": {"model": base}, "name": "smollm2-float"}
    job = await home.post("/v1/jobs", {"spec": spec, "background": True})
    floats = await _done(home, job)
    record = await home.get(f"/v1/models/{floats['version']}")
    await home.post(f"/v1/artifacts/{record['manifest']}/export", {"path": str(tmp_path / "floats")})
    drawn = {"model": tmp_path / "floats", "base": record["manifest"], "seed": 1, "strength": 0.05}
    await home.fetch(str(write_adapter(tmp_path / "sunny", **drawn)), "sunny")
    created = await home.post("/v1/deployments", {"spec": {"name": "chat", "model": "smollm2@1"}, "keep": True})

    async def ready() -> bool:
        return bool((await home.get(PATH))["state"] == "ready")

    await home.until(ready, seconds=240)
    assert (await home.get(PATH))["engine"] == "openvino"
    url, key = (await home.get("/v1/status"))["gateway"].removesuffix("/v1"), created["key"]
    body = {"model": "chat", "messages": [{"role": "user", "content": "Tell me of the sea."}], "max_tokens": 24}

    async def said() -> str:
        status, answer = await home.ask(url, key, "/v1/chat/completions", {**body, "temperature": 0})
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    before, ended = await said(), asyncio.Event()

    async def asking() -> int:
        asked = 0
        while not ended.is_set():
            await said()
            asked += 1
        return asked

    asker = asyncio.create_task(asking())
    code, out, errors = await home.command("update", "chat", "sunny@1", "--bake", "0s", "--json")
    ended.set()
    assert await asker > 0, "requests were answered all the while"
    assert code == 0, errors
    told: dict[str, Any] = json.loads(out)
    assert (told["version"], told["engine"]) == ("sunny-merged-gguf@1", "openvino")
    written = await home.get("/v1/models/sunny-merged-gguf@1")
    merged = await home.get("/v1/models/sunny-merged@1")
    assert (written["format"], written["precision"], written["meta"]["weights_of"]) == (
        "gguf", "int8", merged["manifest"],
    )  # fmt: skip
    parity = (await home.get(PATH))["history"][-1]["parity"]
    assert parity["everywhere"]["count"] >= 1000, "compared with the float weights, which are what was merged"
    assert parity["sure"]["agreed"] >= 0.98 * parity["sure"]["count"], parity
    after = await said()
    assert after != before

    code, out, errors = await home.command("gguf", "sunny-merged", "--name", "again", "--json")
    assert (code, json.loads(out)["version"]) == (0, "again@1"), errors
    code, _, errors = await home.command("gguf", "again")
    assert code != 0
    assert "again@1 is GGUF." in errors, errors


async def _done(home: Home, job: dict[str, Any]) -> dict[str, Any]:
    while job["state"] != "succeeded":
        job = await home.get(f"/v1/jobs/{job['id']}", wait=5)
        assert job["state"] not in {"failed", "cancelled"}, job["error"]
    return dict(job["result"])
