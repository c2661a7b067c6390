// Names for the controls under a flip book; the slider's value is the picture it shows, in words.
function label(book) {
  const name = (what, text) => book.querySelector(what)?.setAttribute("aria-label", text);
  name(".widget-play button:nth-of-type(1)", "Play or pause");
  name(".widget-play button:nth-of-type(2)", "Stop and rewind");
  name(".noUi-handle", "frame");
  const shown = [...book.querySelectorAll("img")].find((picture) => picture.offsetParent);
  if (shown) book.querySelector(".noUi-handle")?.setAttribute("aria-valuetext", shown.alt);
}
// What is wider than its column scrolls: the keyboard can reach it, and it says what it is.
const WIDE = { 'mjx-container[display="true"]': "Equation", ".pst-scrollable-table-container": "Table" };
function reach() {
  const boxes = Object.entries(WIDE).flatMap(([what, text]) =>
    [...document.querySelectorAll(what)].map((box) => [box, text, box.scrollWidth > box.clientWidth]),
  );
  for (const [box, text, wide] of boxes) {
    const said = { tabindex: "0", role: "group", "aria-label": `${text}, scrolls sideways` };
    for (const [name, value] of Object.entries(said))
      if (wide) box.setAttribute(name, value);
      else box.removeAttribute(name);
  }
}
addEventListener("resize", () => requestAnimationFrame(reach));
addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(reach));
addEventListener("DOMContentLoaded", () => {
  for (const view of document.querySelectorAll('script[type$="widget-view+json"]')) {
    const book = view.parentElement;
    const changes = { childList: true, subtree: true, attributeFilter: ["aria-valuenow"] };
    new MutationObserver(() => label(book)).observe(book, changes);
  }
  // The theme lets the keyboard reach code that scrolls, but looks only when the window changes.
  for (const kind of ["click", "toggle"])
    document.querySelector("main")?.addEventListener(
      kind,
      ({ target }) => target.closest(".dropdown, details") && dispatchEvent(new Event("resize")),
      true,
    );
});
