// Elements of a page. Text stays text: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; an attribute that is a function listens. */
export function element(name, attributes = {}, children = [], space = undefined) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...[children].flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of an SVG picture. */
export function svg(name, attributes, children) {
  return element(name, attributes, children, SVG);
}

/** Words with spaces between them. */
export function spaced(elements) {
  return elements.flatMap((each, i) => (i ? [" ", each] : [each]));
}
