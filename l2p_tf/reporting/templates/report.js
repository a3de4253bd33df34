"use strict";
// Without this script the page says the same; with it tables sort, marks of plots speak, and images can be sought.
// It is ASCII, so that its digest holds in whatever encoding the page is read.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Tables: a button in each head. Ascending, descending, and back to the order of the report; dashes come last.
function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const byNumber = heads.map((_, i) => original.some((row) => row.cells[i] && "value" in row.cells[i].dataset));
  const key = (row, i) => {
    const cell = row.cells[i];
    if (!cell) return null;
    if (byNumber[i]) return "value" in cell.dataset ? Number(cell.dataset.value) : null;
    const text = cell.textContent.trim();
    return text === "" || text === "\u2013" ? null : text;
  };
  const sort = (i, direction) => {
    heads.forEach((head, j) => {
      if (j === i && direction) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const rows = original.map((row) => [key(row, i), row]);
    if (direction) {
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return direction * (byNumber[i] ? a - b : a.localeCompare(b, "en", { numeric: true }));
      });
    }
    body.append(...rows.map(([, row]) => row));
  };
  heads.forEach((head, i) => {
    const button = element("button", { type: "button", class: "sort" }, ...head.childNodes);
    if (!button.textContent.trim()) button.setAttribute("aria-label", i ? `column ${i + 1}` : "first column");
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(i, now === "ascending" ? -1 : now === "descending" ? 0 : 1);
    });
    head.append(button);
  });
}

// Plots: each is one stop of the tab key; arrows go from mark to mark. A tip says what a mark stands for.
const tip = element("div", { class: "tip", hidden: "", "aria-hidden": "true" });

function showTip(mark) {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const at = mark.getBoundingClientRect();
  const left = Math.min(at.left + at.width / 2 + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = at.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
}

function hideTip() {
  tip.hidden = true;
}

function speaking(group) {
  const marks = [...group.children];
  marks.forEach((mark, i) => {
    const title = mark.querySelector("title");
    mark.setAttribute("aria-label", title.textContent);
    title.remove(); // Or the browser would show a tip of its own beside ours.
    mark.setAttribute("tabindex", i ? "-1" : "0");
    for (const event of ["pointerenter", "pointerdown", "focus"]) mark.addEventListener(event, () => showTip(mark));
    for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, hideTip);
    mark.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: marks.length - 1 };
      if (event.key === "Escape") hideTip();
      const next = marks[steps[event.key]];
      if (!next) return;
      event.preventDefault();
      mark.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}

// Images: filters over the data that the page carries.
function filtering(block) {
  const data = JSON.parse(block.querySelector("script").textContent);
  const body = block.querySelector("tbody");
  const page = 25;
  let shown = page;
  const choice = (label, options, chosen = 0) => {
    const select = element("select", {}, ...options.map((text, i) => element("option", { value: i }, text)));
    select.value = chosen;
    select.addEventListener("change", () => { shown = page; draw(); });
    block.querySelector(".filters").append(element("label", {}, label, select));
    return Object.assign(() => Number(select.value), { select });
  };
  const attack = choice("Attack", data.attacks, body.dataset.hardest);
  const label = choice("Class", ["every class", ...data.classes]);
  const run = choice("Run", ["every run", ...data.runs]);
  const outcome = choice("Outcome", ["any", "", "", "runs differ"]);
  // Of one run alone there is no "all", and it cannot differ from others.
  const rename = () => {
    const one = run() > 0 || data.runs.length === 1;
    const [, right, wrong, differ] = outcome.select.options;
    right.textContent = one ? "right" : "all right";
    wrong.textContent = one ? "wrong" : "all wrong";
    differ.hidden = differ.disabled = one;
    if (one && outcome() === 3) outcome.select.value = 0;
  };
  run.select.addEventListener("change", () => { rename(); draw(); });
  const more = element("button", { type: "button", class: "more" }, "Show more");
  more.addEventListener("click", () => { shown += page; draw(); });
  block.append(more);

  const wanted = (example) => {
    if (label() && example.label !== label() - 1) return false;
    const cells = example.cells[attack()];
    const asked = (run() ? [cells[run() - 1]] : cells).filter((cell) => cell.length);
    const right = asked.filter((cell) => cell[1]).length;
    if (outcome() === 1) return asked.length > 0 && right === asked.length;
    if (outcome() === 2) return asked.length > 0 && right === 0;
    if (outcome() === 3) return new Set(cells.filter((cell) => cell.length).map((cell) => cell[1])).size > 1;
    return !run() || asked.length > 0;
  };
  const answer = ([prediction, right, probability], i) => {
    const cell = element("td", { class: "words", "data-label": data.runs[i] });
    if (prediction === undefined) {
      cell.append(element("span", { class: "none", "aria-label": "not measured" }, "\u2013"));
      return cell;
    }
    cell.classList.add(right ? "tone-good" : "tone-bad");
    cell.append(`${right ? "\u2713" : "\u2717"} ${data.classes[prediction] ?? "no number"}`);
    if (probability >= 0) cell.append(element("span", { class: "sub" }, `${probability}%`));
    return cell;
  };
  const row = (example) => {
    const head = element("th", { scope: "row" });
    if (example.source) head.append(element("img", { src: example.source, alt: "" }));
    head.append(String(example.index));
    const name = element("td", { class: "words" }, data.classes[example.label]);
    return element("tr", {}, head, name, ...example.cells[attack()].map(answer));
  };
  const draw = () => {
    const matching = data.examples.filter(wanted);
    body.replaceChildren(...matching.slice(0, shown).map(row));
    block.querySelector(".attack").textContent = data.attacks[attack()];
    const kept = data.examples.length;
    const all = kept < data.total ? `the ${kept} kept of ${data.total}` : `${kept}`;
    block.querySelector(".count").textContent =
      `${matching.length} of ${all} images match; ${Math.min(shown, matching.length)} are shown.`;
    more.hidden = matching.length <= shown;
  };
  for (const part of block.querySelectorAll("[hidden]")) part.hidden = false;
  block.querySelector(".static")?.remove();
  rename();
  draw();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.body.append(tip);
document.querySelectorAll("svg .marks").forEach(speaking);
document.querySelectorAll(".images").forEach(filtering);
// A tip goes along with the mark that has the focus, which may be what made the page scroll.
document.addEventListener("scroll", () => {
  if (document.activeElement.closest(".marks") && !tip.hidden) showTip(document.activeElement);
  else hideTip();
}, { passive: true, capture: true });
