// The theme and the tables of the static site; `sortTable` comes from tables.js. Opens from the disk, fetches nothing.

function keptTheme() {
  try { return localStorage.getItem("recsys-theme"); } catch (refused) { return null; }
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  document.querySelector(".rl").dataset.theme = theme;
}

document.addEventListener("DOMContentLoaded", () => {
  paint(keptTheme() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  const here = document.querySelector(".rl-tabs [aria-current]");
  if (here) here.parentNode.scrollLeft = here.offsetLeft - (here.parentNode.clientWidth - here.offsetWidth) / 2;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.local === "theme") {
      const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("recsys-theme", theme); } catch (refused) { /* the choice lasts for this page */ }
      paint(theme);
    } else if (button.closest("table[data-sortable] th")) sortTable(button);
  });
});
