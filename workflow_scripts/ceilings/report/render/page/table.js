"use strict";
// The table of cells: filter and sort. Whoever shows cells listens for "filtered" on the document.

/** An element with attributes and children; a child that is a string becomes text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Rows that a large study adds to its table at a time. */
const ROWS = 200;

/** The cells that the filter lets through; filled by filterTable. */
let passing = DATA.cells;

const tableBody = document.querySelector("#table tbody");
const tableRows = DATA.cells.map((cell) => {
  const element = LARGE ? undefined : document.getElementById(cell.name);
  const words = LARGE ? rowTexts(cell).join(" ") : element.textContent;
  return { cell, element, shown: true, words: words.toLowerCase() };
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
    row.shown = shown;
    if (shown) passing.push(row.cell);
  }
  showRows();
  for (const facet of filterForm.querySelectorAll(".facet")) {
    facet.querySelector(".chosen").textContent = (chosen.get(facet.dataset.facet) ?? []).join(", ");
  }
  document.getElementById("count").textContent =
    `${passing.length} of ${tableRows.length} rows` + (finding === undefined ? "" : ", those of one finding");
  document.dispatchEvent(new Event("filtered"));
}

/** All that a row says, in its order. */
function rowTexts({ label, panel, device, model, sizes, status, texts, reason, remedy }) {
  return [label, panel, device, model, ...sizes, status, ...(texts ?? [reason, remedy])].filter(Boolean);
}

/** A row of a large study, as the page's template writes those of a small one. */
function makeRow(cell) {
  const link = make("a", { href: `#${cell.name}` }, cell.label);
  const flag = cell.flags ? [" ", make("span", { class: "flag", title: cell.flags }, "flagged")] : [];
  const columns = document.querySelectorAll("#table th.number").length || 1;
  const remedy = cell.remedy ? [" ", make("span", { class: "remedy" }, `Remedy: ${cell.remedy}`)] : [];
  return make(
    "tr",
    { id: cell.name },
    make("th", { scope: "row" }, link, " ", make("small", { class: "where" }, cell.panel)),
    make("td", { class: "wide" }, cell.device),
    make("td", { class: "wide" }, cell.model),
    ...cell.sizes.map((size) => make("td", { class: "number" }, size)),
    make("td", {}, make("span", { class: `status ${cell.status}` }, cell.status), ...flag),
    ...(cell.texts?.map((text) => make("td", { class: "number" }, text)) ?? [
      make("td", { colspan: columns }, make("div", { class: "why" }, cell.reason ?? "", ...remedy)),
    ]),
  );
}

/** Show the rows that the filter lets through, in the table's order; of a large study the first ones. */
function showRows() {
  if (LARGE) {
    tableBody.replaceChildren();
    showMoreRows();
    return;
  }
  for (const row of tableRows) row.element.hidden = !row.shown;
}

/** Add rows to the table of a large study, as far as there are more. */
function showMoreRows() {
  const shown = tableRows.filter((row) => row.shown);
  const added = shown.slice(tableBody.rows.length, tableBody.rows.length + ROWS);
  for (const row of added) row.element ??= makeRow(row.cell);
  tableBody.append(...added.map((row) => row.element));
  document.getElementById("more").hidden = tableBody.rows.length === shown.length;
}

/** The link of a cell in the table, whatever the filter was; of a row that is not in it yet the search. */
function linkTo(cell) {
  const row = tableRows.find((one) => one.cell === cell);
  if (!row.shown) filterForm.reset();
  return row.element?.isConnected ? row.element.querySelector("a") : document.getElementById("words");
}

/** Show only the cells that a finding rests on. */
function showFinding(index) {
  filterForm.reset();
  filterForm.dataset.finding = index;
  filterTable();
  document.getElementById("cells").scrollIntoView();
  document.getElementById("count").focus();
}

const alphabet = new Intl.Collator("en", { numeric: true });

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
    return sign * (typeof a === "number" ? a - b : alphabet.compare(String(a), String(b)));
  });
  if (!LARGE) tableBody.append(...tableRows.map((row) => row.element));
  showRows();
}

if (LARGE) {
  showRows();
  const more = document.getElementById("more");
  more.addEventListener("click", () => showMoreRows());
  new IntersectionObserver(([entry]) => entry.isIntersecting && showMoreRows()).observe(more);
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
