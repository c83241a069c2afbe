// The theme, and tables whose columns are put in order by a click on their heads. Opens from the disk, fetches nothing.
const kept = (theme) => { try { if (theme) localStorage.setItem("film-lab-theme", theme); return localStorage.getItem("film-lab-theme"); } catch { return null; } };
const paint = (theme) => { for (const e of [document.documentElement, document.querySelector(".film-lab")]) e.dataset.theme = theme; };
paint(kept() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => paint(kept(document.documentElement.dataset.theme === "dark" ? "light" : "dark")));

for (const head of document.querySelectorAll("table[data-sortable] thead th")) {
  const button = document.createElement("button");
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], column = head.cellIndex, down = head.ariaSort === "ascending";
    for (const other of head.parentNode.children) other.ariaSort = null;
    head.ariaSort = down ? "descending" : "ascending";
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...body.rows].sort((a, b) => (isNaN(value(a)) ? value(a).localeCompare(value(b)) : value(a) - value(b)));
    body.append(...(down ? rows.reverse() : rows));
  });
}
