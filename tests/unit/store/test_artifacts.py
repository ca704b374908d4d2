"""Artifacts are whole or not there, and say which byte was changed."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_os.errors import ConflictError, DiskFullError, IntegrityError, InvalidInputError, NotFoundError
from llm_os.spec.api import ExportRequest
from llm_os.spec.artifacts import CHUNK_BYTES
from llm_os.store.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def output(folder: Path, files: dict[str, bytes], kind: str = "files", **meta: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "artifact.json").write_text(json.dumps({"kind": kind, "meta": meta}))
    return folder


def dataset(folder: Path, rows: list[dict[str, object]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    offsets = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    index = struct.pack(f"<{len(offsets)}Q", *offsets)
    return output(folder, {"train/rows.jsonl": b"".join(lines), "train/rows.idx": index}, "dataset")


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond `limit` bytes: the system itself refuses to write on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)


async def test_a_folder_comes_back_as_it_was(store: ArtifactStore, tmp_path: Path) -> None:
    big = os.urandom(1000) * (CHUNK_BYTES // 500)
    folder = output(tmp_path / "out", {"a/b.bin": big, "empty": b"", "ü.txt": "ü".encode()}, "model", labels=["x"])
    digest, facts, manifest = await store.ingest(folder)
    assert content(store.path(digest)) == content(folder)
    assert (facts.digest, facts.kind, facts.meta) == (digest, "model", {"labels": ["x"]})
    assert facts.size == sum(map(len, content(folder).values()))
    (entry,) = [file for file in manifest.files if file.path == "a/b.bin"]
    assert entry.sha256 == hashlib.sha256(big).hexdigest()
    assert list(entry.chunks) == [
        hashlib.sha256(big[start : start + CHUNK_BYTES]).hexdigest() for start in range(0, len(big), CHUNK_BYTES)
    ]
    store.verify(digest)


def test_equal_folders_have_one_digest_and_lie_there_once(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.put(output(tmp_path / "one", {"w.bin": b"same", "again.bin": b"same"}))[0]
    second = store.put(output(tmp_path / "two", {"again.bin": b"same", "w.bin": b"same"}))[0]
    assert first == second
    assert len([p for p in (tmp_path / "artifacts" / "blobs").rglob("*") if p.is_file()]) == 2
    assert store.put(tmp_path / "one")[0] == first


def test_the_meta_belongs_to_the_digest(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.put(output(tmp_path / "one", {"w": b"x"}, rows=1))[0]
    assert store.put(output(tmp_path / "two", {"w": b"x"}, rows=2))[0] != first


def test_a_file_with_other_names_is_copied_so_that_nobody_changes_it_later(
    store: ArtifactStore, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"original")
    folder = output(tmp_path / "out", {})
    os.link(mine, folder / "w.bin")
    digest = store.put(folder)[0]
    mine.write_bytes(b"changed!")
    store.verify(digest)
    assert (store.path(digest) / "w.bin").read_bytes() == b"original"


def test_stored_files_cannot_be_opened_for_writing_by_mistake(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(output(tmp_path / "out", {"w.bin": b"x"}))[0]
    assert (store.path(digest) / "w.bin").stat().st_mode & 0o222 == 0


def test_verify_names_the_file_and_the_chunk(store: ArtifactStore, tmp_path: Path) -> None:
    digest, _, manifest = store.put(output(tmp_path / "out", {"w.bin": bytes(2 * CHUNK_BYTES + 5)}))
    blob = next(p for p in (tmp_path / "artifacts" / "blobs").rglob("*") if p.name == manifest.files[-1].sha256)
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.seek(CHUNK_BYTES + 17)
        file.write(b"!")
    with pytest.raises(IntegrityError, match=r"w\.bin .* changed in chunk 1"):
        store.verify(digest)
    with blob.open("r+b") as file:
        file.seek(CHUNK_BYTES + 17)
        file.write(b"\0")
        file.truncate(2 * CHUNK_BYTES)
    with pytest.raises(IntegrityError, match=f"has {2 * CHUNK_BYTES} bytes, not"):
        store.verify(digest)
    blob.unlink()
    with pytest.raises(IntegrityError, match=r"w\.bin .* is missing"):
        store.verify(digest)


def test_a_changed_manifest_is_not_believed(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(output(tmp_path / "out", {"w.bin": b"x"}))[0]
    path = tmp_path / "artifacts" / "manifests" / f"{digest.removeprefix('sha256:')}.json"
    path.write_text(path.read_text().replace("w.bin", "v.bin"))
    with pytest.raises(IntegrityError, match="was changed"):
        ArtifactStore(tmp_path / "artifacts").facts(digest)


def test_a_kill_between_any_two_steps_is_repaired_by_doing_it_again(tmp_path: Path) -> None:
    folder = output(tmp_path / "out", {"a.bin": b"one", "b.bin": b"two"})
    expected = ArtifactStore(tmp_path / "reference").put(folder)[0]
    for fatal in range(1, 40):
        store = ArtifactStore(tmp_path / f"store-{fatal}")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _die_at(store, folder, fatal, writer)
        os.close(writer)
        with open(reader, "rb") as pipe:
            finished = pipe.read() == b"whole"
        os.waitpid(child, 0)
        again = ArtifactStore(tmp_path / f"store-{fatal}")
        again.clean()
        digest = again.put(folder)[0]
        assert digest == expected
        again.verify(digest)
        assert content(again.path(digest)) == content(folder)
        assert not list((tmp_path / f"store-{fatal}").rglob(".*"))
        if finished:
            assert fatal > 10
            return
    pytest.fail("the store never got through")


def _die_at(store: ArtifactStore, folder: Path, fatal: int, writer: int) -> None:
    """In the child: end without a word at the `fatal`-th call that changes the file system."""
    seen = 0

    def dying(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += 1
            if seen == fatal:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    try:
        for name in ("link", "replace", "rename", "fsync", "chmod", "mkdir"):
            setattr(os, name, dying(getattr(os, name)))
        store.put(folder)
        os.write(writer, b"whole")
    finally:
        os._exit(0)


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(store: ArtifactStore, tmp_path: Path) -> None:
    folder = output(tmp_path / "out", {"a.bin": b"small", "w.bin": bytes(500_000)})
    os.link(folder / "w.bin", tmp_path / "second-name")
    with small_disk(100_000), pytest.raises(DiskFullError):
        store.put(folder)
    root = tmp_path / "artifacts"
    assert not list((root / "incoming").iterdir())
    assert not list((root / "manifests").iterdir())
    digest = store.put(folder)[0]
    with small_disk(100_000), pytest.raises(DiskFullError):
        store.copy_out(digest, tmp_path / "exported")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["artifacts", "out", "second-name"]


@pytest.mark.parametrize("what", ["link", "pipe", "folder link"])
def test_only_regular_files_are_taken(store: ArtifactStore, tmp_path: Path, what: str) -> None:
    folder = output(tmp_path / "out", {"a": b"x"})
    if what == "pipe":
        os.mkfifo(folder / "p")
    else:
        (folder / "p").symlink_to("/etc/passwd" if what == "link" else "/etc")
    with pytest.raises(InvalidInputError, match="p is a link or special file"):
        store.put(folder)


@pytest.mark.parametrize("declaration", [None, "{", '{"kind": "model"}', "[]", '{"kind": "zoo", "meta": {}}'])
def test_an_output_that_was_not_finished_is_refused(
    store: ArtifactStore, tmp_path: Path, declaration: str | None
) -> None:
    folder = output(tmp_path / "out", {"a": b"x"})
    (folder / "artifact.json").unlink()
    if declaration is not None:
        (folder / "artifact.json").write_text(declaration)
    with pytest.raises(InvalidInputError, match=r"artifact\.json") as caught:
        store.put(folder)
    assert "context.finish" in caught.value.hint


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:../../etc/passwd", "nonsense", ""])
def test_unknown_digests_are_not_found(store: ArtifactStore, digest: str) -> None:
    for ask in (store.facts, store.path, store.verify):
        with pytest.raises(NotFoundError):
            ask(digest)


async def test_rows_are_paged_by_the_index(store: ArtifactStore, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"line {n}   \r字", "label": n} for n in range(25)]
    digest = store.put(dataset(tmp_path / "out", rows))[0]
    page = await store.rows(digest, "train", 10, 5)
    assert (page.total, page.offset, list(page.rows)) == (25, 10, rows[10:15])
    assert list((await store.rows(digest, "train", 0, 100)).rows) == rows
    assert list((await store.rows(digest, "train", 24, 5)).rows) == rows[24:]
    assert list((await store.rows(digest, "train", 99, 5)).rows) == []
    with pytest.raises(NotFoundError, match="no split 'test'") as caught:
        await store.rows(digest, "test", 0, 1)
    assert "train" in caught.value.hint


def test_an_empty_split_has_no_rows(store: ArtifactStore, tmp_path: Path) -> None:
    page = store.read_rows(store.put(dataset(tmp_path / "out", []))[0], "train", 0, 10)
    assert (page.total, page.rows) == (0, ())


def test_an_index_that_does_not_fit_its_rows_is_told(store: ArtifactStore, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "out", [{"text": "a"}, {"text": "b"}])
    (folder / "train" / "rows.idx").write_bytes(struct.pack("<3Q", 0, 5, 26))
    with pytest.raises(IntegrityError, match="cannot be read"):
        store.read_rows(store.put(folder)[0], "train", 0, 10)


async def test_export_makes_a_folder_of_ones_own(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(output(tmp_path / "out", {"a/w.bin": b"x"}))[0]
    target = tmp_path / "new" / "copy"
    report = await store.export(digest, ExportRequest(path=str(target)))
    assert (report.files, content(target)) == (2, content(tmp_path / "out"))
    (target / "a" / "w.bin").write_bytes(b"mine")
    store.verify(digest)
    with pytest.raises(ConflictError, match="not empty"):
        store.copy_out(digest, target)
    with pytest.raises(InvalidInputError, match="absolute"):
        store.copy_out(digest, Path("relative"))


def test_many_threads_may_store_the_same_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    folders = [output(tmp_path / str(n), {"w": b"x" * 100_000, "v": b"y"}) for n in range(8)]
    seen: list[str] = []
    threads = [threading.Thread(target=lambda f=f: seen.append(store.put(f)[0])) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    store.verify(seen[0])


def test_a_place_that_cannot_be_written_is_the_users_to_change(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(output(tmp_path / "out", {"w.bin": b"x"}))[0]
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"cannot be written: Not a directory"):
        store.copy_out(digest, tmp_path / "file" / "model")


async def test_all_broken_files_are_told_and_a_view_that_shows_other_bytes(
    store: ArtifactStore, tmp_path: Path
) -> None:
    digest, _, manifest = store.put(output(tmp_path / "out", {"a": b"one", "b": b"two", "c": b"three"}))
    assert await store.broken(digest) == ()
    for file in manifest.files[:1]:
        (tmp_path / "artifacts" / "blobs" / file.sha256[:2] / file.sha256).unlink()
    view = store.path(digest) / "c"
    view.unlink()
    view.write_bytes(b"other")
    found = {one.path: one.problem for one in await store.broken(digest)}
    assert found == {"a": "is missing", "c": "was replaced in the view that engines read"}
