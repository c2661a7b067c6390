"""Time the pages over a slow line, beside a stock Jupyter Book build of the same chapters.

Largest contentful paint (median of the runs) and bytes sent, in Chromium on an emulated slow 4G
line: 1.6 Mbit/s down, 750 kbit/s up, 150 ms there and back, text gzip-compressed. A stock page
fetches MathJax and the widget manager from other hosts; here copies from npm stand in for them on
the same line, so that the stock figures leave out the cost of reaching those hosts.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import headless
import yaml
from playwright.sync_api import sync_playwright

ROOT = headless.SITE.parents[1]
SLOW_4G = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1.6e6 / 8,
    "uploadThroughput": 750e3 / 8,
}
#: Settings of this book that a stock one lacks.
OURS = {
    "html_css_files",
    "html_js_files",
    "html_static_path",
    "html_theme_options",
    "include_patterns",
    "mathjax_path",
    "nb_ipywidgets_js",
    "templates_path",
}
WATCH = """
  new PerformanceObserver(list => { window.lcp = list.getEntries().at(-1).startTime; })
    .observe({type: 'largest-contentful-paint', buffered: true});"""


def stock(folder):
    """Build the executed chapters with Jupyter Book's own settings; returns the site."""
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_*"))
    for notebook in (ROOT / "_build" / "jupyter_execute" / "book").glob("*.ipynb"):
        shutil.copy(notebook, folder / "book")
    shutil.copy(ROOT / "_toc.yml", folder)
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    settings["execute"] = {"execute_notebooks": "off"}
    del settings["sphinx"]["local_extensions"]
    for name in OURS:
        settings["sphinx"]["config"].pop(name, None)
    settings["sphinx"]["config"]["mathjax3_config"].pop("loader", None)
    (folder / "_config.yml").write_text(yaml.safe_dump(settings))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "-q", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "_build" / "html"


def bring_home(site):
    """Put npm's copies in the place of scripts from other hosts; returns what could not be had."""
    missing = set()

    def local(match):
        url, package, version, path = match[1], match[2], match[3], match[4]
        if "/require.js/" in url:
            package, version, path = "requirejs", match[5], "require.js"
        folder = site / "npm" / package
        if not folder.exists():
            folder.mkdir(parents=True)
            done = subprocess.run(
                ["npm", "pack", "--silent", f"{package}@{version}"],
                cwd=folder, capture_output=True, text=True,
            ) if shutil.which("npm") else None  # fmt: skip
            if done and done.returncode == 0:
                archive = folder / done.stdout.split()[-1]
                shutil.unpack_archive(archive, folder, filter="data")
        if not (folder / "package" / path).is_file():
            missing.add(url)
            return match[0]
        return f'src="/npm/{package}/package/{path}"'

    script = re.compile(
        r'src="(https://[^/"]+/(?:npm/((?:@[^/"]+/)?[^@/"]+)@([^/"]+)/([^"]+)'
        r'|ajax/libs/require\.js/([^/"]+)/[^"]+))"'
    )
    for page in site.rglob("*.html"):
        page.write_text(script.sub(local, page.read_text()))
    return missing


def visit(browser, address):
    """Load a page once with an empty cache; returns seconds to the largest paint, and bytes."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", SLOW_4G)
    sizes = []
    line.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.add_init_script(WATCH)
    page.goto(address, wait_until="load", timeout=180_000)
    page.wait_for_load_state("networkidle", timeout=180_000)
    painted = page.evaluate("window.lcp")
    context.close()
    return painted / 1000, sum(sizes)


def main(runs=3):
    """Print the table."""
    names = sorted(p.name for p in headless.SITE.glob("book/[0-9]*.html"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        plain = stock(Path(folder))
        missing = bring_home(plain)
        browser = playwright.chromium.launch(
            executable_path=headless.chromium(), args=headless.QUIET
        )
        figures = {}
        for site in (headless.SITE, plain):
            with headless.serve(site, compressed=True) as address:
                for name in ["index.html", *names]:
                    seen = [visit(browser, f"{address}/book/{name}") for _ in range(runs)]
                    seconds, size = (
                        statistics.median(column) for column in zip(*seen, strict=True)
                    )
                    figures.setdefault(name, []).append(f"{seconds:7.2f} s {size / 1e6:6.2f} MB")
        browser.close()
    print(f"Largest contentful paint and bytes, slow 4G, median of {runs}")
    print(f"{'page':34}{'this book':>20}{'stock Jupyter Book':>20}")
    for name, (ours, theirs) in figures.items():
        print(f"{name:34}{ours:>20}{theirs:>20}")
    if missing:
        print("Not reached, and so missing from the stock figures:", *sorted(missing))
    else:
        print("Third-party scripts of the stock build: npm's copies (require.js not minified).")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
