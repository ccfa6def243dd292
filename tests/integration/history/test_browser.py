"""The report in a real browser: what it asks for, and whether it fits a phone."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rootstock.coordinator.history.files import REPORT, write_files
from tests.support.merge_records import record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")

MEASURE = """
<body><iframe src="report.html" width="360" height="800" style="border: 0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument;
  const image = page.querySelector("img");
  document.body.dataset.measured = JSON.stringify({
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    picture: image.naturalWidth > 0,
    tables: page.querySelectorAll("table").length,
  });
};
</script></body>
"""


class _Recording(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    def __init__(self, *args: Any, asked: list[str], **kwargs: Any) -> None:
        self._asked = asked
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self._asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, asked: list[str]) -> Iterator[str]:
    handler = partial(_Recording, asked=asked, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def browse(url: str, profile: Path) -> str:
    """Return the page as it is once its scripts have run."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=10000"
    )
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_report_fits_a_phone_and_asks_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    long = "a-category-of-a-very-long-name-that-does-not-break-anywhere"
    write_files(record(["cat", "cow", long], reason="x" * 300), folder)
    (folder / "measure.html").write_text(MEASURE)
    asked: list[str] = []
    with served(folder, asked) as uri:
        page = browse(f"{uri}/measure.html", tmp_path / "profile")
    assert "&quot;overflow&quot;:0" in page, page[-500:]
    assert "&quot;picture&quot;:true" in page
    assert {"/measure.html", f"/{REPORT}"} == set(asked) - {"/favicon.ico"}
