// The widget manager calls MathJax 2's queue; the page carries MathJax 3.
addEventListener("DOMContentLoaded", () => {
  if (!window.MathJax || MathJax.Hub) return;
  MathJax.Hub = {
    Queue: (...jobs) => {
      for (const [name, , element] of jobs)
        if (name === "Typeset" && MathJax.typesetPromise) MathJax.typesetPromise([element]);
    },
  };
});
