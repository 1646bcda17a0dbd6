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
