// The tour beside what it shows: the words of one step, and ways on, back and out.

import { element } from "../dom.mjs";

export class Guide {
  /** `arrive` goes to what the address shows; `leave` gives the focus a place outside. */
  constructor({ arrive, leave }) {
    this.arrive = arrive;
    this.leave = leave;
    this.steps = [...document.querySelectorAll(".tour > li")];
    this.root = element("section", {
      class: "alive guide", "aria-labelledby": "alive-guide-title", hidden: true,
      keydown: ({ key }) => { if (key === "Escape") this.close(); },
    });
  }

  /** Show a step, and give its title the focus. */
  show(step) {
    this.step = step;
    this.refresh();
    this.root.hidden = false;
    this.arrive();
    this.root.querySelector("h3").focus({ preventScroll: true });
  }

  /** The words as they stand in the list now: its numbers may have come. */
  refresh() {
    if (!this.step) return;
    const i = this.steps.indexOf(this.step);
    const words = [...this.step.querySelectorAll(":scope > p:not(.show)")].map((each) => each.cloneNode(true));
    const links = [...this.step.querySelectorAll(".show a")].map((each) => each.cloneNode(true));
    const to = (by, text) => element("button", {
      type: "button", disabled: !this.steps[i + by], click: () => this.go(this.steps[i + by]),
    }, text);
    this.root.replaceChildren(
      element("h3", { id: "alive-guide-title", tabindex: "-1" }, [
        element("span", { class: "where" }, `Tour, step ${i + 1} of ${this.steps.length}: `), this.step.querySelector("h3").textContent,
      ]),
      element("p", { class: "show" }, [
        to(-1, "Back"), to(1, "Next"), ...links,
        element("button", { type: "button", click: () => this.back() }, "Back to the tour"),
      ]),
      element("div", { class: "words" }, words),
      element("button", { type: "button", class: "close", "aria-label": "Close this step of the tour", click: () => this.close() }, "×"),
    );
  }

  /** Stand before this part of the page. */
  put(part) {
    if (this.root.nextElementSibling === part) return;
    const held = this.root.contains(document.activeElement) ? document.activeElement : null;
    part.before(this.root);
    held?.focus({ preventScroll: true });
  }

  go(step) {
    const { hash } = step.querySelector(".show a");
    this.show(step);
    if (hash !== location.hash) location.hash = hash;
  }

  back() {
    this.root.hidden = true;
    this.step.scrollIntoView({ block: "center" });
    this.step.querySelector(".show a").focus({ preventScroll: true });
  }

  close() {
    this.root.hidden = true;
    this.leave();
  }
}
