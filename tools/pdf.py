"""Print the built pages into one PDF: title, contents with page numbers, chapters, bookmarks."""

import html
import io
import os
import sys
from pathlib import Path

import headless
from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter

NAME = "variational-logistic-regression.pdf"
LICENCE = "Text under CC BY 4.0, code under the MIT licence."
PAPER = {"format": "A4", "print_background": True, "scale": 0.8,
         "margin": {side: "18mm" for side in ("top", "bottom", "left", "right")}}  # fmt: skip
FOOTER = '<p style="font: 9px sans-serif; width: 100%; text-align: center" class="pageNumber"></p>'
PRINTED = """
  *, ::before, ::after { animation: none !important; transition: none !important }
  .bd-sidebar, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .bd-footer-article,
  .prev-next-footer, .bd-footer-content, .onlyprint, .headerlink, .copybtn, .toggle-button,
  .skip-link, #pst-back-to-top, .noprint, .widget-play, .widget-slider { display: none !important }
  .bd-main, .bd-content, .bd-article-container, .bd-container__inner, .bd-page-width {
    display: block !important; max-width: 100% !important; width: 100% !important;
    margin: 0 !important; padding: 0 !important }
  aside.margin, .margin {
    float: none !important; width: 100% !important; margin: 1rem 0 !important }
  article h1 { display: block !important }
  .hide.above-input > summary { display: none !important }
  .hide.above-input pre { font-size: 70%; line-height: 1.25; padding: .4em .8em }
  body, .bd-container, pre, .cell, .cell_input, .cell_output, .highlight, [class*="highlight-"] {
    display: block !important; break-inside: auto !important; overflow: visible !important }
  pre { white-space: pre-wrap !important; overflow-wrap: anywhere }
  figure, img, tr, mjx-container[display="true"], .admonition-title { break-inside: avoid }
  h1, h2, h3, .admonition-title { break-after: avoid }
  div.math { overflow: visible !important }
"""
# Everything folded is opened and everything late is fetched; a link to another page keeps its text.
PREPARE = """async ([site]) => {
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  document.querySelectorAll('.toggle-hidden').forEach(t => t.classList.remove('toggle-hidden'));
  const pictures = [...document.querySelectorAll('article img')];
  pictures.forEach(i => { i.loading = 'eager'; });
  await Promise.all(pictures.map(i => i.decode().catch(() => 0)));
  document.querySelectorAll('article a[href]').forEach(a => {
    const [page, anchor] = a.href.split('#');
    if (page == location.href.split('#')[0] || new URL(a.href).host != location.host) return;
    if (site) a.href = site + new URL(a.href).pathname + (anchor ? '#' + anchor : '');
    else a.removeAttribute('href');
  });
}"""


# The text of headings is taken from here: Chromium's own outline says parts of some twice.
HEADINGS = """() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
  .filter(h => h.checkVisibility()).map(h => {
    const copy = h.cloneNode(true);
    copy.querySelectorAll('.headerlink').forEach(a => a.remove());
    copy.querySelectorAll('mjx-container').forEach(m => {
      m.replaceWith(m.querySelector('mjx-assistive-mml')?.textContent ?? '');
    });
    return [copy.textContent.trim(), Number(h.tagName[1])];
  })"""


def printed(page, address):
    """Print one page of the site; returns it and its headings: text, level and page, from 0."""
    page.goto(address, wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    if page.locator('script[type*="widget-view"]').count():
        page.wait_for_selector(".widget-subarea img")
    page.emulate_media(media="print")
    page.add_style_tag(content=PRINTED)
    page.evaluate(PREPARE, [os.environ.get("BOOK_SITE_URL", "").rstrip("/")])
    page.wait_for_load_state("networkidle")
    page.evaluate("() => document.fonts.ready")
    headings = page.evaluate(HEADINGS)
    reader = PdfReader(io.BytesIO(page.pdf(**PAPER, outline=True, tagged=True)))
    places = [reader.get_destination_page_number(item) for item in flat(reader.outline)]
    if len(places) != len(headings):
        raise RuntimeError(f"{address}: {len(headings)} headings, {len(places)} in the PDF")
    return reader, [(*heading, at) for heading, at in zip(headings, places, strict=True)]


def flat(outline):
    """List an outline's items in reading order."""
    for item in outline:
        if isinstance(item, list):
            yield from flat(item)
        else:
            yield item


def front(page, title, author, rows):
    """Print the title page and the contents."""
    lines = "".join(
        f'<li style="padding-left: {2 * level - 2}em; font-weight: {400 if level > 1 else 700}">'
        f"<span>{html.escape(name)}</span><span>{number}</span></li>"
        for name, level, number in rows
    )
    page.set_content(
        f"""<!doctype html><html lang="en"><title>{title}</title><style>
        body {{ font: 16px/1.6 sans-serif }} header {{ break-after: page; padding-top: 30vh }}
        li {{ display: flex; justify-content: space-between; gap: 1em; break-inside: avoid }}
        ul {{ padding: 0 }}</style>
        <header><h1>{title}</h1><p>{author}</p><p>{LICENCE}</p></header>
        <main><h2>Contents</h2><ul>{lines}</ul></main></html>"""
    )
    return PdfReader(io.BytesIO(page.pdf(**PAPER)))


def numbers(page, count):
    """Print empty pages with a number at their foot."""
    page.set_content("<p style='break-after: page'>&nbsp;</p>" * (count - 1) + "<p>&nbsp;</p>")
    paper = {**PAPER, "display_header_footer": True, "header_template": "<p></p>"}
    return PdfReader(io.BytesIO(page.pdf(**paper, footer_template=FOOTER)))


def book(site, target):
    """Print every page of the site in reading order into `target`."""
    with sync_playwright() as playwright, headless.serve(site) as address:
        browser = playwright.chromium.launch(
            executable_path=headless.chromium(), args=headless.QUIET
        )
        page = browser.new_page(color_scheme="light")
        page.goto(f"{address}/book/index.html")
        title = page.locator("article h1").evaluate("h => h.firstChild.textContent.trim()")
        author = page.locator(".component-author").first.text_content()
        author = " ".join((author or "").split())
        links = page.locator("nav.bd-docs-nav a.reference").evaluate_all("a => a.map(x => x.href)")
        chapters = [printed(page, link.split("#")[0]) for link in links]

        def rows(start):
            for reader, headings in chapters:
                for text, level, at in headings:
                    if level <= 2:
                        yield text, level, start + at + 1
                start += len(reader.pages)

        opening = front(page, title, author, rows(0))
        opening = front(page, title, author, rows(len(opening.pages)))
        writer = PdfWriter()
        writer.append(opening, import_outline=False)
        for reader, _ in chapters:
            writer.append(reader, import_outline=False)
        parent = None
        for text, level, number in rows(len(opening.pages)):
            under = writer.add_outline_item(
                title=text, page_number=number - 1, parent=parent if level > 1 else None
            )
            parent = under if level == 1 else parent
        feet = numbers(page, len(writer.pages))
        for leaf, foot in zip(writer.pages[1:], feet.pages[1:], strict=True):
            leaf.merge_page(foot)
            leaf.compress_content_streams()
        writer.add_metadata({"/Title": title, "/Author": author, "/Subject": LICENCE})
        writer.compress_identical_objects()
        writer.write(target)
        browser.close()
    print(f"{target}: {len(writer.pages)} pages, {target.stat().st_size} bytes")


if __name__ == "__main__":
    site, target = map(Path, sys.argv[1:] or (headless.SITE, headless.SITE / NAME))
    book(site, target)
