"""A hub on this machine: an HTTP server that speaks as much of the Hugging Face hub's interface as downloads need."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Repositories as folders. `sent` counts the bytes of files by name; `gated` needs the token `hf_right`.

    slow: seconds before each 256 KiB of a file, to be interrupted in. cut: bytes of a file, behind which the connection
    ends, once.
    """

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}  # org/name or datasets/org/name -> folder
        self.gated: set[str] = set()
        self.sent: Counter[str] = Counter()
        self.asked: list[str] = []
        self.ranges: list[str] = []  # of requests that go on
        self.slow, self.cut = 0.0, 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.store = f"http://localhost:{self._server.server_address[1]}/store"  # another host, as that of the hub is
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repository: str) -> str:
        """The commit of a repository: a hash of its files."""
        folder = self.folders[repository]
        text = "".join(f"{f.relative_to(folder)} {digest(f, f.stat().st_mtime_ns)}" for f in files(folder))
        return hashlib.sha1(text.encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file())


@cache
def digest(file: Path, _: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_large(file: Path) -> bool:
    """Whether a file is kept in the hub's store of large files, to which requests are redirected."""
    return file.suffix in (".safetensors", ".parquet", ".bin")


def entry(file: Path, folder: Path) -> dict[str, Any]:
    sha, size = digest(file, file.stat().st_mtime_ns), file.stat().st_size
    lfs = {"lfs": {"sha256": sha, "oid": sha, "size": size, "pointerSize": 130}} if is_large(file) else {}
    path = str(file.relative_to(folder))
    return {"type": "file", "path": path, "rfilename": path, "size": size, "oid": sha[:40], "blobId": sha[:40], **lfs}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.reply()

        def do_GET(self) -> None:
            self.reply()

        def do_POST(self) -> None:
            self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            self.reply()

        def reply(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            if match := API.fullmatch(path):
                self.of_api(match)
            elif match := RESOLVE.fullmatch(path):
                self.of_file(match)
            elif path.startswith("/store/"):
                self.file(Path("/" + path.removeprefix("/store/")), {})
            else:
                self.refuse(404, "EntryNotFound")

        def known(self, repository: str, revision: str) -> bool:
            if repository not in hub.folders:
                self.refuse(401, "RepoNotFound")
            elif revision not in ("main", hub.commit(repository)):
                self.refuse(404, "RevisionNotFound")
            else:
                return True
            return False

        def of_api(self, match: re.Match[str]) -> None:
            repository = match[2] if match[1] == "models" else f"datasets/{match[2]}"
            if not self.known(repository, match[4] or "main"):
                return
            folder = hub.folders[repository]
            entries = [entry(f, folder) for f in files(folder)]
            if match[3] == "tree":
                self.tree(entries, match[5] or "")
            elif match[3] == "paths-info":
                self.json([e for e in entries if e["path"] in self.body["paths"]])
            else:
                info = {
                    "id": match[2],
                    "sha": hub.commit(repository),
                    "siblings": entries,
                    "tags": [],
                    "private": False,
                }
                self.json(info | {"downloads": 0, "likes": 0, "gated": repository in hub.gated and "auto"})

        def tree(self, entries: list[dict[str, Any]], below: str) -> None:
            """The entries below a folder; without `recursive` the files and folders in it."""
            start = f"{below}/" if below else ""
            inside = [e for e in entries if e["path"].startswith(start)]
            if below and not inside:
                self.refuse(404, "EntryNotFound")
            elif "recursive=true" in self.path.lower():
                self.json(inside)
            else:
                folders = {start + e["path"].removeprefix(start).split("/")[0] for e in inside}
                direct = [e for e in inside if e["path"] in folders]
                folders -= {e["path"] for e in direct}
                self.json(direct + [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders])

        def of_file(self, match: re.Match[str]) -> None:
            repository = (match[1] or "") + match[2]
            if not self.known(repository, match[3]):
                return
            if repository in hub.gated and self.headers.get("Authorization") != "Bearer hf_right":
                self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
                return
            file = hub.folders[repository] / match[4]
            if not file.is_file():
                self.refuse(404, "EntryNotFound", {"X-Repo-Commit": hub.commit(repository)})
                return
            tag = f'"{digest(file, file.stat().st_mtime_ns)}"'
            headers = {"ETag": tag, "X-Repo-Commit": hub.commit(repository)}
            if is_large(file):
                linked = {"X-Linked-Etag": tag, "X-Linked-Size": str(file.stat().st_size)}
                self.empty(302, headers | linked | {"Location": f"{hub.store}{file}"})
            else:
                self.file(file, headers)

        def file(self, file: Path, headers: dict[str, str]) -> None:
            content = file.read_bytes()
            begin, whole = 0, len(content)
            if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                begin = int(match[1])
                hub.ranges.append(f"{file.name} from {begin}")
                headers = headers | {"Content-Range": f"bytes {begin}-{whole - 1}/{whole}"}
            self.send_response(206 if begin else 200)
            for name, value in (headers | {"Accept-Ranges": "bytes", "Content-Length": str(whole - begin)}).items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(begin, whole, 1 << 18) if self.command == "GET" else ():
                time.sleep(hub.slow)
                if hub.cut and at > hub.cut:
                    hub.cut = 0
                    self.close_connection = True
                    return
                part = content[at : at + (1 << 18)]
                self.wfile.write(part)
                hub.sent[file.name] += len(part)

        def json(self, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
            self.empty(status, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

        def empty(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": "0"}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
