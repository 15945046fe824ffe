// How numbers and tokens are written.

export const SPACE = "\u2581"; // what the tokenizer writes for a space

/** A token as a label: without the mark of its space. */
export function label(piece) {
  return piece.replaceAll(SPACE, "") || SPACE;
}

/** A number with two decimals, a true minus, and no "-0.00". */
export function digits(value, places = 2) {
  const written = value.toFixed(places);
  return Number(written) === 0 ? written.replace("-", "") : written.replace("-", "−");
}

const RAISED = { "-": "⁻", ...Object.fromEntries([..."⁰¹²³⁴⁵⁶⁷⁸⁹"].map((sign, i) => [i, sign])) };

/** A weight: four decimals, or a power of ten where they would say nothing. */
export function weighed(value) {
  if (value >= 0.001 || value === 0) return digits(value, 4);
  const [front, power] = value.toExponential(1).split("e");
  return `${front} × 10${[...power].map((sign) => RAISED[sign]).join("")}`;
}

/** A probability in words. */
export function percent(p) {
  if (p >= 0.9995) return "over 99.9 %";
  if (p < 0.001) return "under 0.1 %";
  return `${(100 * p).toFixed(p < 0.1 || p >= 0.995 ? 1 : 0)} %`;
}

/** The place of the largest number in a row. */
export function best(values) {
  let place = 0;
  values.forEach((value, i) => { if (value > values[place]) place = i; });
  return place;
}

/** Words in a list: "a, b and c". */
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
