"use strict";
// The charts: Vega-Lite specifications from the page's data, and the cells to show in them.

const unique = (values) => [...new Set(values)];

/** A specification without the layers and lines of tooltips for which no row has a value. */
function fitted(spec, rows) {
  const has = (field) => field === undefined || rows.some((row) => row[field] !== undefined);
  return JSON.parse(JSON.stringify(spec), (key, value) => {
    if (key === "layer") return value.filter((layer) => has(layer.usermeta?.needs));
    if (key === "tooltip" && Array.isArray(value)) return value.filter((line) => has(line.field));
    return value;
  });
}

/** Draw a chart of DATA.charts with its rows, or say that there is nothing to draw. Resolves once it is drawn.
 *  `along`: the axis of shapes that it is drawn along, if it is. */
async function draw(target, name, values, nothing, along) {
  target.view?.finalize();
  target.view = undefined;
  if (values.length === 0) {
    target.textContent = nothing;
    return;
  }
  const { config } = DATA.charts;
  const { rows, height } = DATA.charts[name].usermeta ?? {};
  const spec = {
    ...fitted(DATA.charts[name], values),
    data: { values },
    width: "container",
    ...(rows && { height: height * unique(values.map((value) => value[rows])).length }),
    params: Object.entries({ runtimes: "runtime", precisions: "precision", parts: "part", sizes: along }).map(
      ([param, field]) => ({
        name: param,
        value: unique(values.map((value) => value[field]).filter((value) => value !== undefined)),
      }),
    ),
  };
  const { view } = await vegaEmbed(target, spec, {
    mode: "vega-lite",
    renderer: "svg",
    ast: true, // expressions are interpreted: the page's policy forbids code made from text
    config: { ...config, axis: { ...config.axis, labelLimit: 0.4 * target.clientWidth } },
    actions: { export: true, source: false, compiled: false, editor: false },
  });
  await view.resize().runAsync(); // the height of several legends is known only once they were laid out
  target.view = view;
  view.addEventListener("click", (_, item) => {
    if (item?.datum?.name) location.hash = `#${encodeURI(item.datum.name)}`;
  });
}

/** Make room for legends again: at another width their columns are others, which Vega sees once it is laid out. */
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    for (const { view } of document.querySelectorAll(".chart")) view?.resize().runAsync();
  }, 150);
});

/** Offer the shapes that the chosen model was measured at; the common one first chosen. */
function offerShapes() {
  const panel = document.getElementById("panel");
  if (!panel) return;
  const options = DATA.shapes[panel.value].map(({ name, where, common }) => new Option(where, name, common, common));
  document.getElementById("shape").replaceChildren(...options);
}

/** The charts over all cells, of what the filter and the choice of model and shape leave. */
function drawOverview() {
  const panel = document.getElementById("panel");
  if (!panel) return undefined;
  const shape = document.getElementById("shape").value;
  const cells = passing.filter((cell) => cell.status === "ok" && !cell.second && cell.panel === panel.value);
  const swept = (axis, among = cells) => {
    const counts = new Map();
    for (const cell of among) counts.set(cell.label, (counts.get(cell.label) ?? new Set()).add(cell[axis]));
    return (cell) => counts.get(cell.label).size > 1;
  };
  const all = DATA.cells.filter((cell) => cell.status === "ok" && !cell.second && cell.panel === panel.value);
  const here = cells.filter((cell) => cell.shape === shape);
  const sizes = DATA.cells.find((cell) => cell.panel === panel.value && cell.shape === shape);
  /** Cells that differ from the shape along one axis alone. */
  const along = (axis) =>
    cells
      .filter((cell) => [...DATA.axes, "lengths"].every((other) => other === axis || cell[other] === sizes[other]))
      .filter((cell) => cell[axis] !== undefined);
  /** The same, of configurations with several. */
  const line = (axis) => along(axis).filter(swept(axis));
  const nothing = "No measured cell that the filter lets through belongs here.";
  const budgets = document.getElementById("chart-budgets");
  const jobs = {
    pareto: withFront(along("batch")),
    configurations: withinReach(here),
    budgets: budgetRows(here, budgets?.clientWidth ?? 0),
  };
  if (budgets) budgets.closest("figure").hidden = jobs.budgets.length === 0;
  const axisOf = {};
  for (const [axis, name] of Object.entries(DATA.curves)) {
    jobs[name] = withinReach(line(axis));
    axisOf[name] = axis;
    // A chart along an axis that the model does not have, or has at one size, is no empty chart, it is none.
    const several = sizes[axis] !== undefined && all.some(swept(axis, all));
    document.getElementById(`chart-${name}`).closest("figure").hidden = !several;
  }
  return Promise.all(
    Object.entries(jobs)
      .map(([name, values]) => [document.getElementById(`chart-${name}`), name, values])
      .filter(([target]) => target)
      .map(([target, name, values]) => draw(target, name, values.map(flat), nothing, axisOf[name])),
  );
}

/** The charts of loads behind servers, which no filter and no choice of a shape change. */
function drawServed() {
  return Promise.all(
    DATA.served.flatMap((panel) =>
      ["latency", "throughput", "batches"].map((name) => {
        const target = document.getElementById(`chart-served-${name}-${panel.number}`);
        return target && draw(target, `served-${name}`, panel[name], "");
      }),
    ),
  );
}

/** Cells with the part of their intervals that is drawn: one of decades would hide all other differences. */
function withinReach(cells) {
  const reach = 2; // times the fastest and the slowest median, as in the pictures
  const medians = cells.flatMap((cell) => [cell.p50_ms, cell.floor_ms]).filter((ms) => ms !== undefined);
  const lowest = Math.min(...medians) / reach;
  const highest = Math.max(...medians) * reach;
  return cells.map((cell) => ({
    ...cell,
    ...(cell.low !== undefined && {
      drawn_from: Math.max(cell.low, lowest),
      drawn_to: Math.min(cell.high, highest),
      ...(cell.low < lowest && { goes_below: lowest }),
      ...(cell.high > highest && { goes_above: highest }),
    }),
  }));
}

/** Cells, marked where no other one has both a lower latency and a higher throughput. */
function withFront(cells) {
  let most = 0;
  return [...cells]
    .sort((a, b) => a.p50_ms - b.p50_ms || b.throughput - a.throughput)
    .map((cell) => {
      const front = cell.throughput > most;
      most = Math.max(most, cell.throughput);
      return { ...cell, front, short: `${cell.precision} b${cell.batch}` };
    });
}

/** Budgets as rows of a bar chart some pixels wide; parts that have room for their name show it. */
function budgetRows(cells, width) {
  const longest = Math.max(...cells.map((cell) => cell.budget?.ms ?? 0));
  return cells.flatMap((cell) =>
    (cell.budget?.parts ?? []).map((part, order) => ({
      ...part,
      order,
      large: (0.7 * width * part.ms) / longest > 7 * part.part.length ? part.part : "",
      label: cell.label,
      name: cell.name,
    })),
  );
}

/** A timeline as rows of its chart: spans, lines from a launch to what it started, and both ends. */
function timelineRows({ length, spans, launches }) {
  const lane = { host: { y: 0, y2: 1 }, device: { y: 2, y2: 3 } };
  return [
    ...spans.map(([side, part, begin, end]) => ({ ...lane[side], part, begin, end, "µs": end - begin })),
    ...launches.map(([begin, end]) => ({ y: 1, y2: 2, begin, end })),
    ...[0, length].map((at) => ({ y: 0, y2: 3, begin: at, end: at })),
  ];
}

/** Only plain values: what a chart need not know would be copied with every row. */
function flat(value) {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => typeof field !== "object"));
}
