// What the pages of the book do: charts, terms, the sentence on the landing page.

// A chart: its spec lies beside it, and Vega draws it. Views that stand side by side and
// do not fit are stacked in as many columns as do; in a fold, when it opens.
async function drawChart(chart) {
  const options = { actions: false, renderer: "canvas", mode: "vega-lite" };
  const place = document.createElement("div");
  chart.append(place);
  let spec = JSON.parse(chart.querySelector("script").textContent);
  await window.vegaEmbed(place, spec, options);
  const fit = async () => {
    const room = chart.clientWidth - 16;
    const { hconcat, ...rest } = spec;
    let columns = hconcat?.length ?? 1;
    while (columns > 1 && place.scrollWidth > room) {
      columns = Math.min(columns - 1, Math.floor((columns * room) / place.scrollWidth)) || 1;
      spec = { ...rest, concat: hconcat, columns };
      if (columns === 1) {
        spec.config = { ...spec.config, legend: { ...spec.config?.legend, orient: "bottom" } };
      }
      await window.vegaEmbed(place, spec, options);
    }
    reachScrolling();
  };
  const folded = chart.closest("details:not([open])");
  if (folded) folded.addEventListener("toggle", fit, { once: true });
  else await fit();
  chart.dataset.drawn = "yes";
}

// A term of the glossary: its line appears when pointed at, or with the keyboard.
function explainTerms() {
  const tip = document.createElement("div");
  tip.id = "term-tip";
  tip.role = "tooltip";
  tip.hidden = true;
  document.body.append(tip);
  const show = (link) => {
    const name = decodeURIComponent(link.hash.slice("#term-".length));
    const line = definitions.get(name);
    if (!line) return;
    tip.textContent = line;
    tip.hidden = false;
    link.setAttribute("aria-describedby", "term-tip");
    const box = link.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 12);
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${box.bottom + window.scrollY + 6}px`;
  };
  const hide = () => { tip.hidden = true; };
  const definitions = new Map(
    Object.entries(window.courseTerms || {}).map(([term, line]) => [term.replaceAll(" ", "-"), line])
  );
  for (const term of document.querySelectorAll("a > .term")) {
    const link = term.parentElement;
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

// The landing page: an English word lights up the German words that it looked at.
function pointAtWords(demo) {
  const point = (row) => {
    demo.classList.toggle("pointing", row !== undefined);
    const lit = new Map();
    for (const item of demo.querySelectorAll("[data-row]")) {
      const on = item.dataset.row === row;
      item.classList.toggle("on", on);
      if (on && item.tagName === "rect") {
        lit.set(item.dataset.column, Number(item.style.getPropertyValue("--w")));
      }
    }
    for (const word of demo.querySelectorAll("span.word")) {
      word.style.setProperty("--w", lit.get(word.dataset.column) || 0);
    }
    demo.dispatchEvent(new CustomEvent("point", { detail: row }));
  };
  const row = (place) => place?.closest?.("[data-row]")?.dataset.row;
  // The words are replaced when another sentence is translated: the box listens for them.
  for (const [enter, leave] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    demo.addEventListener(enter, (event) => {
      if (row(event.target) !== undefined) point(row(event.target));
    });
    demo.addEventListener(leave, (event) => {
      if (row(event.target) !== row(event.relatedTarget)) point(undefined);
    });
  }
  demo.addEventListener("click", (event) => {
    if (row(event.target) !== undefined) point(row(event.target));
  });
}

// Its sentence can be edited where the model can be fetched: pages on a disk cannot.
function translateHere(demo) {
  if (location.protocol !== "file:") return void import("./alive/landing.mjs");
  demo.querySelector(".hint").append(
    " To translate a sentence of your own, run “make book-serve” and open the page that it names.",
  );
}

// The page "alive" runs where the model can be fetched; elsewhere it says what to do.
function comeAlive(page) {
  if (location.protocol === "file:") return;
  page.hidden = false;
  document.querySelector(".alive-off").remove();
  import("./alive/page/main.mjs");
}

// Two names that the theme's own buttons lack for those who cannot see them.
function nameButtons() {
  for (const summary of document.querySelectorAll("nav.bd-links summary")) {
    summary.setAttribute("aria-label", "Show or hide the pages below");
  }
  for (const button of document.querySelectorAll(".search-button-field")) {
    button.removeAttribute("aria-label"); // its text says it
  }
  for (const button of document.querySelectorAll(".theme-switch-button")) {
    // The icons' own words come and go while the theme starts.
    button.setAttribute("aria-label", "Color mode: light, dark, system settings");
    for (const icon of button.children) icon.setAttribute("aria-hidden", "true");
  }
}

// What scrolls by itself must be reachable with the keyboard.
function reachScrolling() {
  for (const box of document.querySelectorAll("div.math, .code-map, .chart")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  nameButtons();
  if (window.vegaEmbed) document.querySelectorAll(".chart").forEach(drawChart);
  explainTerms();
  const demo = document.querySelector(".demo");
  if (demo) {
    pointAtWords(demo);
    translateHere(demo);
  }
  const page = document.querySelector("#alive-look");
  if (page) comeAlive(page);
  reachScrolling();
  window.addEventListener("resize", reachScrolling);
});
window.addEventListener("load", () => {
  window.MathJax?.startup?.promise?.then(reachScrolling);
});
