"use strict";
// What opens for one cell. Texts are set as text, never as HTML: some of them are messages of runtimes.

const dialog = document.getElementById("details");

function definitions(pairs) {
  return make("dl", {}, ...pairs.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value))));
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}

function simpleTable(rows) {
  const columns = Object.keys(rows[0]).filter((name) => rows.some((row) => row[name] !== ""));
  const cells = (row) => columns.map((name) => make("td", {}, row[name]));
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map((row) => make("tr", {}, ...cells(row)));
  return make(
    "div",
    { class: "scroll", tabindex: "0" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)),
  );
}

/** Fill the dialog and open it; resolves once its charts are drawn. */
async function openCell(cell) {
  await whole(cell);
  const body = document.getElementById("details-body");
  document.getElementById("details-title").textContent = `${cell.label}, ${cell.where}`;
  body.replaceChildren(make("p", {}, cell.panel, " · ", make("span", { class: `status ${cell.status}` }, cell.status)));
  const charts = [];
  const chart = (name, values) => {
    const target = make("div", { class: "chart" });
    charts.push(() => draw(target, name, values, ""));
    return target;
  };
  if (cell.budget) {
    const parts = cell.budget.parts.map(({ side, part, ms }) => ({ side, part, ms: String(ms) }));
    body.append(
      section(
        "Where an iteration goes",
        definitions(cell.budget.facts),
        chart("budget", budgetRows([cell], Math.min(innerWidth, 900))),
        make("details", {}, make("summary", {}, "as a table"), simpleTable(parts)),
        ...(cell.kernels ? [make("details", {}, make("summary", {}, "its kernels"), simpleTable(cell.kernels))] : []),
      ),
    );
  }
  if (cell.timeline) {
    body.append(
      section(
        "One iteration",
        chart("timeline", timelineRows(cell.timeline)),
        make("p", { class: "quiet" }, "Drag to move, Shift and the wheel to zoom, double click for the whole."),
      ),
    );
  }
  body.append(make("div", { class: "facts" }, ...cell.facts.map(([title, pairs]) => section(title, definitions(pairs)))));
  if (cell.quantiles) {
    const points = cell.quantiles.flatMap(({ process, ms }) =>
      ms.map((value, index) => ({ process, ms: value, share: DATA.quantiles[index] })),
    );
    body.append(section("How its iterations are distributed", chart("distribution", points)));
    body.append(section("Its iterations in order", chart("course", cell.stretches.flatMap(courseRows))));
  }
  if (cell.processes) body.append(section("Its processes", simpleTable(cell.processes)));
  if (cell.findings) {
    const texts = cell.findings.map((index) => document.querySelector(`#finding-${index} .text`).cloneNode(true));
    body.append(section("Findings that rest on it", make("ul", {}, ...texts.map((text) => make("li", {}, text)))));
  }
  if (cell.paths) {
    const items = cell.paths.map((path) => make("li", {}, make("code", {}, path)));
    body.append(section("Files behind it", make("ul", {}, ...items)));
  }
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  document.getElementById("details-title").focus();
  for (const job of charts) await job(); // a chart needs its width, so not before the dialog is open
}

/** One point a stretch of a process's iterations, at the stretch's middle. */
function courseRows({ process, n, median, max }) {
  return median.map((value, index) => ({
    process,
    iteration: Math.round(((index + 0.5) * n) / median.length),
    median: value,
    max: max[index],
  }));
}

dialog.addEventListener("close", () => {
  for (const target of dialog.querySelectorAll(".chart")) target.view?.finalize();
  // The address no longer names the cell; pushing no entry, so that "back" leaves the page as it is.
  history.replaceState(null, "", "#");
  returnTo.focus();
  returnTo = undefined;
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside the sheet
});

/** The link that led to the open cell: following it took the focus from it. */
let returnTo;

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link && CELLS.has(decodeURI(link.hash.slice(1)))) returnTo = link;
});

/** Open the cell that the address names, if it names one. */
function openAddressed() {
  const cell = CELLS.get(decodeURI(location.hash.slice(1)));
  if (!cell) return undefined;
  returnTo ??= linkTo(cell);
  return openCell(cell);
}
