"""Style and script of the page. Without the script, every query is on it, one below the other."""

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --back: #fff; --soft: #59636e; --line: #d1d9e0; --panel: #f6f8fa;
  --right: #1a7f37; --wrong: #cf222e; --accent: #0969da; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --soft: #9198a1; --line: #3d444d;
  --panel: #151b23; --right: #3fb950; --wrong: #f85149; --accent: #4493f8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 0 12px 24px; font: 15px/1.4 system-ui, sans-serif;
  color: var(--text); background: var(--back); font-variant-numeric: tabular-nums; }
h1 { font-size: 1.3rem; margin: 12px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 12px 0 4px; }
h3 { font-size: .95rem; margin: 0 0 4px; }
.file { font-weight: normal; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
p, summary { color: var(--soft); margin: 2px 0 6px; }
table { border-collapse: collapse; }
th, td { padding: 2px 12px 2px 0; text-align: left; border-bottom: 1px solid var(--line); }
nav { position: sticky; top: 0; z-index: 1; background: var(--back); border-bottom: 1px solid var(--line);
  padding: 6px 0; display: flex; flex-wrap: wrap; gap: 6px 16px; justify-content: space-between; }
nav[hidden] { display: none; }
.filters, .steps { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
button { font: inherit; min-height: 44px; padding: 4px 12px; color: var(--text); background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
button[aria-pressed=true] { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
button:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }
button:disabled { opacity: .5; cursor: default; }
#place { min-width: 5.5em; text-align: center; }
article { scroll-margin-top: 5rem; }
.facts { list-style: none; margin: 0 0 10px; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 16px; }
.outcome { font-size: .85rem; white-space: nowrap; border: 1px solid; border-radius: 99px; padding: 1px 10px; }
.outcome.same { color: var(--soft); }
.panels, .tiles { display: flex; flex-wrap: wrap; gap: 10px; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px; }
figure { margin: 0; width: 96px; }
img { display: block; width: 100%; border-radius: 3px; }
figcaption { font-size: .78rem; line-height: 1.25; margin-top: 3px; }
.query figure { width: 128px; }
.maps { flex: 1 1 auto; max-width: 100%; }
.lists { margin-top: 10px; display: grid; gap: 10px; }
.lists.beside { grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
ol { margin: 0; padding: 0; list-style: none; counter-reset: rank; display: grid; gap: 8px;
  grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); }
ol li { counter-increment: rank; }
ol figure { width: auto; max-width: 110px; position: relative; }
ol figure::before { content: counter(rank); position: absolute; left: 4px; top: 4px; padding: 0 5px; font-size: .75rem;
  color: #fff; background: rgb(0 0 0 / .65); border-radius: 3px; }
.right img { border: 4px solid; } .right, .helped { color: var(--right); }
.wrong img { border: 4px dashed; } .wrong, .hurt { color: var(--wrong); }
.any img { object-fit: contain; max-height: 192px; }
.paged article:not(.current) { display: none; }
@media (max-width: 600px) {
  .lists, .lists.beside { grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: 6px; }
  .list ol { grid-template-columns: 1fr; }
  .list ol figure { max-width: 96px; margin: 0 auto; }
  .maps figure { width: calc((100% - 20px) / 3); }
  nav { position: static; }
  .steps { position: fixed; inset: auto 0 0 0; justify-content: space-between; padding: 6px 12px; z-index: 1;
    background: var(--back); border-top: 1px solid var(--line); }
  body { padding-bottom: 72px; }
}
@media print { nav { display: none; } .paged article:not(.current) { display: block; } }
"""

SCRIPT = """
"use strict";
(() => {
  const articles = [...document.querySelectorAll("article")];
  const filters = [...document.querySelectorAll("[data-filter]")];
  const byId = (id) => document.getElementById(id);
  let shown = articles, current = 0, started = false;

  const draw = () => {
    for (const article of articles) article.classList.toggle("current", article === shown[current]);
    byId("place").textContent = shown.length ? `${current + 1} of ${shown.length}` : "0 of 0";
    byId("previous").disabled = current <= 0;
    byId("next").disabled = current >= shown.length - 1;
    byId("none").hidden = shown.length > 0;
    if (!started || !shown.length) return;  // at the start, the browser would scroll there
    try { history.replaceState(null, "", "#" + shown[current].id); } catch { /* refused in a sandbox */ }
  };
  const go = (index) => { if (index >= 0 && index < shown.length) { current = index; draw(); } };
  const filter = (name) => {
    const kept = shown[current];
    for (const button of filters) button.setAttribute("aria-pressed", button.dataset.filter === name);
    shown = name === "all" ? articles : articles.filter((article) => article.dataset.outcome === name);
    current = Math.max(0, shown.indexOf(kept));
    draw();
  };
  const fromAddress = () => {
    const index = articles.findIndex((article) => "#" + article.id === location.hash);
    if (index >= 0) { filter("all"); go(index); } else draw();
  };

  for (const button of filters) button.addEventListener("click", () => filter(button.dataset.filter));
  byId("previous").addEventListener("click", () => go(current - 1));
  byId("next").addEventListener("click", () => go(current + 1));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowLeft") go(current - 1);
    else if (event.key === "ArrowRight") go(current + 1);
  });
  window.addEventListener("hashchange", fromAddress);
  document.querySelector("nav").hidden = false;
  document.body.classList.add("paged");
  fromAddress();
  started = true;
})();
"""
