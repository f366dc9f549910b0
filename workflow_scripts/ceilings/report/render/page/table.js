"use strict";
// The table of cells: filter and sort. Whoever shows cells listens for "filtered" on the document.

const DATA = JSON.parse(document.getElementById("data").textContent);
const CELLS = new Map(DATA.cells.map((cell) => [cell.name, cell]));

/** The cells that the filter lets through; filled by filterTable. */
let passing = DATA.cells;

const tableRows = DATA.cells.map((cell) => {
  const element = document.getElementById(cell.name);
  return { cell, element, words: element.textContent.toLowerCase() };
});
const filterForm = document.getElementById("filter");

/** Values that are ticked, by facet; a facet without any lets everything through. */
function ticked() {
  const chosen = new Map();
  for (const box of filterForm.querySelectorAll("input:checked")) {
    chosen.set(box.name, [...(chosen.get(box.name) ?? []), box.value]);
  }
  return chosen;
}

function filterTable() {
  const words = document.getElementById("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = ticked();
  const finding = filterForm.dataset.finding;
  passing = [];
  for (const row of tableRows) {
    const shown =
      words.every((word) => row.words.includes(word)) &&
      [...chosen].every(([facet, values]) => values.includes(String(row.cell[facet]))) &&
      (finding === undefined || (row.cell.findings ?? []).includes(Number(finding)));
    row.element.hidden = !shown;
    if (shown) passing.push(row.cell);
  }
  for (const facet of filterForm.querySelectorAll(".facet")) {
    facet.querySelector(".chosen").textContent = (chosen.get(facet.dataset.facet) ?? []).join(", ");
  }
  document.getElementById("count").textContent =
    `${passing.length} of ${tableRows.length} rows` + (finding === undefined ? "" : ", those of one finding");
  document.dispatchEvent(new Event("filtered"));
}

/** Show only the cells that a finding rests on. */
function showFinding(index) {
  filterForm.reset();
  filterForm.dataset.finding = index;
  filterTable();
  document.getElementById("cells").scrollIntoView();
  document.getElementById("count").focus();
}

/** Sort by a column; cells without a value come last in either direction. */
function sortTable(header) {
  const name = header.dataset.sort;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const sign = ascending ? 1 : -1;
  tableRows.sort((one, two) => {
    const [a, b] = [one.cell[name], two.cell[name]];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  });
  document.querySelector("#table tbody").append(...tableRows.map((row) => row.element));
}

document.querySelector("#table thead").addEventListener("click", (event) => {
  const header = event.target.closest("[data-sort]");
  if (header) sortTable(header);
});
filterForm.addEventListener("input", filterTable);
filterForm.addEventListener("submit", (event) => event.preventDefault());
filterForm.addEventListener("reset", () => {
  delete filterForm.dataset.finding;
  setTimeout(filterTable); // once the fields are empty
});
// One facet is open at a time, as menus are; Escape and a click elsewhere close it.
document.addEventListener("click", (event) => {
  for (const facet of filterForm.querySelectorAll(".facet[open]")) {
    if (!facet.contains(event.target)) facet.open = false;
  }
});
filterForm.addEventListener("keydown", (event) => {
  const facet = event.target.closest(".facet[open]");
  if (event.key === "Escape" && facet) {
    facet.open = false;
    facet.querySelector("summary").focus();
  }
});
for (const button of document.querySelectorAll("button.only")) {
  button.addEventListener("click", () => showFinding(button.dataset.finding));
}
