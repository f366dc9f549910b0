"use strict";
// The page's data: all cells, and of a large study what opens for one, block by block.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LARGE = DATA.columns !== undefined;

/** Cells from columns; a cell has no field where its column has no value. */
function fromColumns(columns) {
  const entries = Object.entries(columns);
  return columns.name.map((_, index) =>
    Object.fromEntries(
      entries.filter(([, values]) => values[index] !== null).map(([name, values]) => [name, values[index]]),
    ),
  );
}

if (LARGE) DATA.cells = fromColumns(DATA.columns);
delete DATA.columns;
const CELLS = new Map(DATA.cells.map((cell) => [cell.name, cell]));

/** The values of a block: base64 of JSON that gzip compressed. */
async function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** A cell with all that opens for it. */
async function whole(cell) {
  if (LARGE && cell.facts === undefined) {
    const blocks = document.querySelectorAll("script.block");
    const block = Math.floor(DATA.cells.indexOf(cell) / DATA.block);
    const opened = await decoded(blocks[block].textContent);
    opened.forEach((fields, index) => Object.assign(DATA.cells[block * DATA.block + index], fields));
  }
  return cell;
}
