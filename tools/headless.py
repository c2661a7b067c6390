"""Chromium without a window, and the built site served to it from this machine."""

import contextlib
import functools
import gzip
import http.server
import shutil
import threading
from pathlib import Path

SITE = Path(__file__).parents[1] / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium draws its address bar's pop-ups, with scripts of their own, in every new window.
    # The list takes the place of Playwright's: hence the rest.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,HttpsUpgrades,MediaRouter,"
    "OptimizationHints,PaintHolding",
)
PACKED = (".woff", ".woff2", ".png", ".webp", ".avif", ".jpg", ".pdf")


def chromium():
    """Return the path of Debian's Chromium or the runner's own, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class _Silent(http.server.SimpleHTTPRequestHandler):
    """Serve files without a log; compressed, where asked to, as a web host does."""

    def __init__(self, *args, compressed=False, **options):
        self.compressed = compressed
        super().__init__(*args, **options)

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not self.compressed or path.suffix in PACKED or not path.is_file():
            return super().do_GET()
        body = _packed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@functools.cache
def _packed(path):
    return gzip.compress(path.read_bytes(), 6)


@contextlib.contextmanager
def serve(site, compressed=False):
    """Serve a folder; yields its address."""
    handler = functools.partial(_Silent, directory=str(site), compressed=compressed)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
