"""Reads the rows of a recording: JSONL, and the logs of lm-evaluation-harness and of Inspect.

Rows of logs are translated to the columns `id`, `question`, `target`, `completion` (and `choices`), one row for each
sample of an item. Logs may come from anybody: the entries of a zip file are read within limits,
and nothing is extracted.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.evals.problems import MOST, Problems, read_rows

Row = dict[str, Any]
MOST_OF_A_SAMPLE = 64 * 2**20  # bytes
MOST_OF_A_LOG = 4 * 2**30  # bytes of all samples together
# A method of compression, which Inspect writes from 0.3.180 on, and zipfile reads from Python 3.14 on.
_ZSTANDARD = 93
_HARNESS = {"doc_id", "resps", "filter"}  # columns of lm-evaluation-harness


def recorded_rows(path: Path, problems: Problems) -> list[tuple[int, Row]]:
    """Returns (line from 1, row) of each recorded sample in a file. What cannot be read is added to `problems`.

    In a log of Inspect the number of a sample takes the place of the line.

    Raises:
        Mistake: the file cannot be read at all.
    """
    if path.suffix == ".eval":
        return list(_translated(path, _zipped_samples(path, problems), problems, _inspect_rows))
    if path.suffix == ".json" and (log := _whole_log(path)):
        _check_status(path, log, problems)
        return list(_translated(path, enumerate(log["samples"], 1), problems, _inspect_rows))
    rows = read_rows(path, problems)
    if not any(row.keys() >= _HARNESS for _, row in rows):
        return rows
    kept = next(row["filter"] for _, row in rows if "filter" in row)  # each filter repeats all documents
    once = [(n, row) for n, row in rows if row.get("filter") == kept]
    return list(_translated(path, once, problems, _harness_rows))


def _translated(path: Path, rows: Any, problems: Problems, translate: Any) -> Iterator[tuple[int, Row]]:
    for n, row in rows:
        try:
            yield from [(n, r) for r in translate(row)]
        except ValueError as error:
            problems.add(path, n, str(error))
        except (KeyError, TypeError, IndexError, AttributeError):  # of any form, as anybody may have written it
            problems.add(path, n, "it does not have the form of such logs")


def _harness_rows(row: Row) -> list[Row]:
    """Returns a row for each sample of a document, whose id is its own `id` or else its number in the dataset."""
    doc = row["doc"] if isinstance(row.get("doc"), dict) else {}
    texts = [text for response in row["resps"] for text in response]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("it holds log-likelihoods and no completions; tasks of the type generate_until have them")
    arguments = row.get("arguments") or {}
    prompt = arguments.get("gen_args_0", {}).get("arg_0", "") if isinstance(arguments, dict) else ""
    same = {"id": doc.get("id", row["doc_id"]), "question": str(prompt), "target": row.get("target")}
    return [same | {"completion": text} for text in texts]


def _inspect_rows(sample: Row) -> list[Row]:
    """Returns a row for each output of a sample; of its content the text counts, and no reasoning."""
    outputs = sample["output"].get("choices") or []
    if not outputs:
        raise ValueError(f"it has no output: {json.dumps((sample.get('error') or {}).get('message', ''))[:80]}")
    target, asked = sample.get("target"), sample["input"]
    row: Row = {"id": sample["id"], "target": target[0] if isinstance(target, list) and len(target) == 1 else target}
    row |= {"question": asked if isinstance(asked, str) else _content(asked[-1]["content"], sample)}
    if sample.get("choices"):
        row["choices"] = sample["choices"]
    return [row | {"completion": _content(output["message"]["content"], sample)} for output in outputs]


def _content(content: str | list[Row], sample: Row) -> str:
    """Returns the text of a message. A long text may be kept apart, among the sample's attachments."""
    text = content if isinstance(content, str) else "".join(p["text"] for p in content if p.get("type") == "text")
    attached = (sample.get("attachments") or {}).get(text.removeprefix("attachment://"))
    return attached if text.startswith("attachment://") and isinstance(attached, str) else text


def _whole_log(path: Path) -> Row | None:
    """Returns the log of Inspect that a JSON file is; None for another file."""
    if path.stat().st_size > MOST:
        return None
    try:
        log = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # the answer to the question: it is JSONL, or is read as such and reported
        return None
    return log if isinstance(log, dict) and "eval" in log and isinstance(log.get("samples"), list) else None


def _check_status(path: Path, header: Any, problems: Problems) -> None:
    status = header.get("status") if isinstance(header, dict) else None
    if status != "success":
        problems.remark(path, f"the status of the log is {status!r}; it may lack samples")


def _zipped_samples(path: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, sample) of a log that is a zip file of JSON."""
    try:
        log = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError):
        raise Mistake(f"{path} is no log of Inspect: it is no zip file") from None
    with log:
        entries = {entry.filename: entry for entry in log.infolist()}  # of one name the last, as in zipfile
        samples = [entry for name, entry in entries.items() if name.startswith("samples/")]
        if not samples:
            raise Mistake(f"{path} is no log of Inspect, or one without samples")
        if sum(entry.file_size for entry in samples) > MOST_OF_A_LOG:
            raise Mistake(f"{path}: its samples are larger than {MOST_OF_A_LOG >> 30} GiB together")
        try:
            header = _read(log, entries["header.json"]) if "header.json" in entries else {"status": "started"}
        except ValueError:
            header = {"status": "unreadable"}
        _check_status(path, header, problems)
        for n, entry in enumerate(samples, 1):
            try:
                yield n, _read(log, entry)
            except ValueError as error:
                problems.add(path, n, f"this sample cannot be read: {error}")


def _read(log: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    """Returns the JSON of an entry of a zip file. At most as many bytes as it declares are decompressed.

    Raises:
        ValueError: it is too large or damaged, or no JSON.
    """
    if entry.file_size > MOST_OF_A_SAMPLE:
        raise ValueError(f"it is larger than {MOST_OF_A_SAMPLE >> 20} MiB")
    try:
        return json.loads(_zstandard(log, entry) if entry.compress_type == _ZSTANDARD else log.read(entry))
    except (OSError, EOFError, RuntimeError, RecursionError, zlib.error, zipfile.BadZipFile, struct.error) as error:
        raise ValueError(str(error)) from None


def _zstandard(log: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    import pyarrow

    with open(str(log.filename), "rb") as file:
        file.seek(entry.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
        file.seek(name + extra, 1)
        packed = file.read(entry.compress_size)
    data: bytes = pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd").read(entry.file_size)
    if zlib.crc32(data) != entry.CRC:
        raise ValueError("its checksum is another")
    return data
