// Two kinds of pictures: numbers of vectors, a row for each token; and attention maps.

import { element } from "../dom.mjs";
import { largest, paint, shade } from "./colors.mjs";
import { best, digits, label, percent } from "./words.mjs";

/** A token's label, which lights up with all others of the same token. */
export function tokenLabel({ token, piece }, attributes = {}) {
  return element("span", { class: "token", "data-token": token, ...attributes }, label(piece));
}

/** Arrow keys move a place in a grid; returns true if the key was one of them. */
function moved(event, place, rows, columns) {
  const by = {
    ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
  }[event.key];
  if (by) {
    place.row = Math.min(rows - 1, Math.max(0, place.row + by[0]));
    place.col = Math.min(columns - 1, Math.max(0, place.col + by[1]));
  } else if (event.key === "Home") place.col = 0;
  else if (event.key === "End") place.col = columns - 1;
  else return false;
  event.preventDefault();
  return true;
}

const FINEST = 260; // stripes in a row that can still be seen

/** Of each few columns, the number that is largest in size. */
function folded(values, rows, columns, fold) {
  if (fold === 1) return values;
  const width = Math.ceil(columns / fold), made = new Float32Array(rows * width);
  values.forEach((value, i) => {
    const place = Math.floor(i / columns) * width + Math.floor((i % columns) / fold);
    if (Math.abs(value) > Math.abs(made[place])) made[place] = value;
  });
  return made;
}

/**
 * Vectors as a strip of colors each. Point at one, or move with the arrow keys, to read
 * its number. `rows` are { token, piece } or { name }; `at(row)` is a row's numbers.
 */
export function vectors({ key, title, rows, at, columns, column = "number", current = -1, signed = true, each = false }) {
  const fold = Math.ceil(columns / FINEST), stripes = Math.ceil(columns / fold);
  const values = new Float32Array(rows.length * columns);
  rows.forEach((_, i) => values.set(at(i), i * columns));
  const most = largest(values), canvas = element("canvas", {
    tabindex: "0", role: "img", "data-key": key,
    "aria-label": `${title}: ${rows.length} ${rows.length === 1 ? "row" : "rows"} of ${columns} numbers, ` +
      `the largest in size ${digits(most)}. Arrow keys read single numbers.`,
  });
  if (each) { // rows of different kinds: each has its own scale
    const scaled = values.map((value, i) => {
      const row = Math.floor(i / columns);
      return value / (largest(values.subarray(row * columns, (row + 1) * columns)) || 1);
    });
    paint(canvas, scaled, rows.length, columns, { most: 1, signed });
  } else paint(canvas, folded(values, rows.length, columns, fold), rows.length, stripes, { most, signed });
  const size = signed ? `−${digits(most)} to ${digits(most)}` : `0 to ${digits(most)}`;
  const scale = (each ? "each row on its own scale" : `colors from ${size}`) +
    (fold > 1 ? `; a stripe is the largest in size of ${fold} ${column}s` : "");
  const output = element("output", { class: "reading" }, `Point at a color to read its number; ${scale}.`);
  const place = { row: Math.max(0, current), col: 0 }, cursor = element("span", { class: "cursor", "aria-hidden": "true" });
  const tell = () => {
    cursor.style.cssText = `--row:${place.row};--col:${(place.col + 0.5) / columns}`;
    const row = rows[place.row], value = values[place.row * columns + place.col];
    const who = row.name ?? `“${label(row.piece)}”`;
    output.textContent = `${who}, ${column} ${place.col}: ${digits(value, 4)}`;
    canvas.dispatchEvent(new CustomEvent("point", { bubbles: true, detail: row.token }));
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    place.row = Math.min(rows.length - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows.length)));
    place.col = Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
    tell();
  });
  canvas.addEventListener("pointerleave", () => canvas.dispatchEvent(new CustomEvent("point", { bubbles: true })));
  canvas.addEventListener("keydown", (event) => { if (moved(event, place, rows.length, columns)) tell(); });
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) tell(); });
  const names = rows.map((row, i) => {
    const made = row.name ? element("span", { class: "token" }, row.name) : tokenLabel(row);
    if (i === current) made.classList.add("current");
    return made;
  });
  return element("figure", { class: "vectors", style: `--rows:${rows.length}` }, [
    element("figcaption", {}, title),
    element("div", { class: "names", "aria-hidden": "true" }, names),
    element("div", { class: "strip" }, [canvas, cursor]),
    output,
  ]);
}

/** What a map says, row by row: where each row looks most. */
export function inWords(rows, columns, at) {
  return rows.map((row, i) => {
    const weights = columns.map((_, j) => at(i, j)), j = best(weights);
    return `${label(row.piece)} at ${label(columns[j].piece)} (${percent(weights[j])})`;
  }).join(", ");
}

/** A small map of one head. */
export function thumbnail({ rows, columns, at, current = -1 }) {
  const canvas = element("canvas", { "aria-hidden": "true" });
  const values = rows.flatMap((_, i) => columns.map((_, j) => at(i, j)));
  paint(canvas, values, rows.length, columns.length, { most: 1, signed: false });
  const mark = element("span", { class: "here", style: `--row:${current};--rows:${rows.length}` });
  return element("span", { class: "thumbnail" }, current < 0 ? [canvas] : [canvas, mark]);
}

/**
 * An attention map: rows ask, columns are looked at. `at` gives a weight or a score;
 * `hidden` tells the cells that the mask hides, `writes` what each row decides. A click,
 * or Enter, chooses a cell.
 */
export function attentionMap({
  key, title, rows, columns, at, writes = [], hidden = () => false, signed = false, most = 1,
  current = -1, chosen = null, onChoose = () => {}, unit = (value) => percent(value),
}) {
  const place = chosen ?? { row: Math.max(0, current), col: 0 };
  const cells = rows.map((_, i) => columns.map((_, j) => {
    const value = at(i, j), shut = hidden(i, j);
    const [red, green, blue] = shade(value, most, signed);
    const name = `${label(rows[i].piece)} at ${label(columns[j].piece)}: ` +
      `${shut ? "hidden by the mask" : unit(value)}`;
    return element("td", {
      role: "gridcell", "aria-label": name, "aria-selected": String(chosen?.row === i && chosen?.col === j),
      class: shut ? "hidden" : false, "data-row": i, "data-col": j, "data-key": `${key}.${i}.${j}`,
      tabindex: i === place.row && j === place.col ? "0" : "-1",
      style: shut ? false : `background:rgb(${red} ${green} ${blue})`,
      "data-token": rows[i].token, "data-also": columns[j].token,
    });
  }));
  const output = element("output", { class: "reading" },
    "Point at a cell to read it. Click it to see the dot product that made it.");
  const head = element("tr", {}, [
    element("td"),
    ...columns.map((column) => element("th", { scope: "col" }, tokenLabel(column))),
  ]);
  const body = rows.map((row, i) => element("tr", { class: i === current ? "current" : false }, [
    element("th", { scope: "row" }, [tokenLabel(row), writes[i] ? element("span", { class: "writes" }, [" → ", tokenLabel(writes[i])]) : null]),
    ...cells[i],
  ]));
  const table = element("table", { role: "grid", class: "attention-map", "aria-label": title, style: `--columns:${columns.length}` }, [
    element("thead", {}, head), element("tbody", {}, body),
  ]);
  const cellOf = (event) => event.target.closest?.("td[data-row]");
  const tell = (cell) => { if (cell) output.textContent = cell.getAttribute("aria-label"); };
  table.addEventListener("pointerover", (event) => tell(cellOf(event)));
  table.addEventListener("focusin", (event) => tell(cellOf(event)));
  const choose = (cell) => onChoose({ row: Number(cell.dataset.row), col: Number(cell.dataset.col) });
  table.addEventListener("click", (event) => { if (cellOf(event)) choose(cellOf(event)); });
  table.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return choose(cell);
    }
    const next = { row: Number(cell.dataset.row), col: Number(cell.dataset.col) };
    if (!moved(event, next, rows.length, columns.length)) return;
    cell.tabIndex = -1;
    cells[next.row][next.col].tabIndex = 0;
    cells[next.row][next.col].focus();
  });
  return element("figure", { class: "map" }, [
    element("figcaption", {}, title),
    element("div", { class: "scroll" }, table),
    output,
  ]);
}
