r"""Filter, deduplicate and tokenize texts with datatrove, into shards that `illada pretrain` reads as they are.

    pip install 'illada[datatrove]'
    python examples/datatrove/pipeline.py texts --out shards
    illada pretrain tiny --out runs/shards --corpus.tokenizer shards/tokenizer \
        --corpus.sources tokens:shards/train --corpus.held-out-sources tokens:shards/valid

`texts` is a folder of JSON lines (`.jsonl`, `.jsonl.gz`) with the text in the field `text`, or its URL. Everything runs
on datatrove's local executor; on a cluster `run` gives the same steps to its SlurmPipelineExecutor or
RayPipelineExecutor.

What comes out: `shards/tokenizer`, trained on the first of the texts unless --tokenizer names one, and in
`shards/train` and `shards/valid` the files NAME.ds, NAME.ds.index and NAME.ds.sums.
"""

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from illada.data.checksums import BLOCK, block_sums
from illada.data.sources import Source
from illada.data.tokenizer import Tokenizer

MINHASH = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"), num_buckets=8, hashes_per_bucket=8, n_grams=5)


class Words(WordTokenizer):
    """Words for MinHash: what stands between blanks. datatrove has better ones for many languages, through spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError("MinHash asks for words alone")


def is_prose(document: Document, *, least: int) -> bool:
    """At least `least` characters, four in five of them letters or blanks."""
    text = document.text
    return len(text) >= least and sum(c.isalpha() or c.isspace() for c in text) >= 0.8 * len(text)


def split(data: Iterable[Document], rank: int = 0, world_size: int = 1, *, fraction: float) -> Iterator[Document]:
    """Mark what is held out, by the hash of the text: the same documents in every run, whatever is added."""
    for document in data:
        digest = hashlib.sha256(document.text.encode("utf-8", errors="surrogatepass")).hexdigest()
        document.metadata["split"] = "valid" if int(digest[:8], 16) / 16**8 < fraction else "train"
        yield document


def checksums(data: None, rank: int = 0, world_size: int = 1, *, folder: str) -> None:
    """NAME.ds.sums for every file of tokens: so training notices a byte that changed on a disk or a way."""
    output = get_datafolder(folder)
    for name in output.get_shard(rank, world_size, glob_pattern="*.ds"):
        with output.open(name, "rb") as tokens, output.open(f"{name}.sums", "wb") as sums:
            while block := tokens.read(64 * BLOCK):
                sums.write(block_sums(block))


def run(pipeline: list[PipelineStep], chosen: argparse.Namespace, name: str, *, tasks: int) -> None:
    """One stage, each of its tasks in a process; a stage that was finished before is not run again."""
    logs = f"{chosen.out}/logs/{name}"
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(tasks, chosen.workers), logging_dir=logs).run()


def clean(chosen: argparse.Namespace) -> None:
    """The texts that are kept, as JSON lines in `work/text/train` and `work/text/valid`."""
    work = f"{chosen.out}/work"
    keep = partial(is_prose, least=chosen.least)
    filtered = [JsonlReader(str(chosen.texts)), LambdaFilter(keep), JsonlWriter(f"{work}/filtered")]
    run(filtered, chosen, "filter", tasks=chosen.tasks)

    signatures = [JsonlReader(f"{work}/filtered"), MinhashDedupSignature(f"{work}/signatures", MINHASH, Words())]
    run(signatures, chosen, "signatures", tasks=chosen.tasks)
    buckets = [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=MINHASH)]
    run(buckets, chosen, "buckets", tasks=MINHASH.num_buckets)
    run([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", MINHASH)], chosen, "clusters", tasks=1)
    kept = [
        JsonlReader(f"{work}/filtered"),
        MinhashDedupFilter(f"{work}/remove"),
        partial(split, fraction=chosen.held_out),
        JsonlWriter(f"{work}/text", output_filename="${split}/${rank}.jsonl.gz"),
    ]
    run(kept, chosen, "deduplicate", tasks=chosen.tasks)


def tokenize(chosen: argparse.Namespace, tokenizer: Path) -> None:
    """Shards of both parts, the documents of each file shuffled."""
    for part in ("train", "valid"):
        shards = f"{chosen.out}/{part}"
        encode = DocumentTokenizer(
            shards,
            str(tokenizer),
            shuffle_documents=not chosen.keep_order,
            seed=0,
            max_tokens_per_file=chosen.file_tokens,
        )
        run([JsonlReader(f"{chosen.out}/work/text/{part}"), encode], chosen, f"tokenize-{part}", tasks=chosen.tasks)
        run([partial(checksums, folder=shards)], chosen, f"checksums-{part}", tasks=chosen.tasks)


def the_tokenizer(chosen: argparse.Namespace) -> Path:
    """The tokenizer's folder, and in it the file that datatrove encodes with: BOS, the text, EOS."""
    folder = chosen.out / "tokenizer"
    if chosen.tokenizer is not None:
        tokenizer = Tokenizer.load(chosen.tokenizer)
    else:
        texts = Source(path=str(chosen.out / "work" / "text" / "train")).documents()
        tokenizer = Tokenizer.train((text for text, _ in zip(texts, range(100_000), strict=False)), chosen.vocab_size)
    tokenizer.save(folder)
    tokenizer.save_for_pipelines(folder / "datatrove.json")
    return folder / "datatrove.json"


def main() -> None:
    """Clean, tokenize, and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="a folder of JSON lines, or its URL")
    parser.add_argument("--out", type=Path, default=Path("shards"), help="where the shards go")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json; without it one is trained")
    parser.add_argument("--vocab-size", type=int, default=4096, help="of the tokenizer that is trained")
    parser.add_argument("--least", type=int, default=100, help="shorter texts are dropped, in characters")
    parser.add_argument("--held-out", type=float, default=0.02, help="the part of the documents that is held out")
    parser.add_argument("--keep-order", action="store_true", help="do not shuffle the documents of a file")
    parser.add_argument("--file-tokens", type=int, default=10**9, help="tokens of a file before the next begins")
    parser.add_argument("--tasks", type=int, default=4, help="into how many parts the work is cut, and the shards")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    chosen = parser.parse_args()
    clean(chosen)
    tokenize(chosen, the_tokenizer(chosen))
    for part in ("train", "valid"):
        files = sorted((chosen.out / part).glob("*.ds"))
        print(f"{part}: {sum(file.stat().st_size for file in files):,} bytes of tokens in {len(files)} files")


if __name__ == "__main__":
    main()
