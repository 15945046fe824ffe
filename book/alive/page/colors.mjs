// Numbers as colors: blue below zero, orange above; for weights, one blue.

const SHADES = 64;
let tables = {};

/** Forget the colors; the page has turned dark or light. */
export function repaint() {
  tables = {};
}

function parse(color) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data.slice(0, 3);
}

/** Shades from the page's color to another one, named as in the style sheet. */
function shades(variable) {
  if (tables[variable]) return tables[variable];
  const style = getComputedStyle(document.querySelector(".alive"));
  const from = parse(style.getPropertyValue("--page")), to = parse(style.getPropertyValue(variable));
  return (tables[variable] = Array.from({ length: SHADES + 1 }, (_, i) =>
    [0, 1, 2].map((c) => Math.round(from[c] + ((to[c] - from[c]) * i) / SHADES))));
}

/** The color of a number, as three bytes; `most` is the size that is darkest. */
export function shade(value, most, signed = true) {
  const table = shades(!signed ? "--map" : value < 0 ? "--below" : "--above");
  const share = most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
  return table[Math.round(share * SHADES)] ?? table[0];
}

/** The largest size among some numbers. */
export function largest(values) {
  let most = 0;
  for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return most;
}

/** A canvas with one pixel for each number, row by row. */
export function paint(canvas, values, rows, columns, { most = largest(values), signed = true } = {}) {
  canvas.width = Math.max(1, columns);
  canvas.height = Math.max(1, rows);
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < rows * columns; i++) {
    const [red, green, blue] = shade(values[i], most, signed);
    image.data.set([red, green, blue, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}
