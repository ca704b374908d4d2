"""What of a deployment's spec goes over to another version."""

from llm_os.kernel.revisions import without_foreign_key
from llm_os.spec.deployments import DeploymentSpec
from llm_os.spec.models import ModelVersion


def remote(url: str) -> ModelVersion:
    return ModelVersion(
        card="far", number=1, manifest="sha256:" + "0" * 64, format="remote", precision="unknown",
        task="text-generation", size=1, meta={"url": url}, created_at=0,
    )  # fmt: skip


def test_a_key_never_goes_to_a_server_that_it_was_not_given_for() -> None:
    options = {"key_file": "/home/anna/a.key", "max_requests": 4}
    spec = DeploymentSpec(name="far", model="far@1", engine="remote", options=options)
    here, other = remote("https://a.example/v1"), remote("https://b.example/v1")
    assert without_foreign_key(spec, here, remote("https://a.example/v2")) is spec
    assert without_foreign_key(spec, here, other).options == {"max_requests": 4}
    assert without_foreign_key(spec, here, remote("http://a.example/v1")).options == {"max_requests": 4}
