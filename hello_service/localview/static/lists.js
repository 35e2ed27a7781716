// The views of many traces: search while typing, filters, and the values of the charts.
// Without JavaScript, the same works with links and forms.
"use strict";

const MISTAKE_MS = 250; // after the last key, before a mistake or an empty result is shown

const form = document.querySelector("[data-search]");
let typed = 0;

if (form) {
  const apply = () => {
    const given = [...new FormData(form)].filter(([, value]) => value !== "");
    const kept = new URLSearchParams(location.search).has("all") ? [["all", "1"]] : [];
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams([...given, ...kept])}`);
    refresh();
  };
  form.addEventListener("input", (event) => {
    typed = event.target.matches("select, [type=checkbox]") ? 0 : performance.now();
    apply();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    typed = 0;
    apply();
  });
  const entries = (each) => new URLSearchParams(new FormData(each)).toString();
  const rendered = new DOMParser().parseFromString(form.outerHTML, "text/html").forms[0];
  if (entries(form) !== entries(rendered)) apply(); // a field was changed before this script ran
}

let merging = false; // while a fetched document is merged, an element that loses the focus gets it back
hooks.before = async (fresh) => {
  for (const open of document.querySelectorAll("details[id][open]")) {
    fresh.getElementById(open.id)?.setAttribute("open", "");
  }
  upgrade(fresh);
  const wait = typed + MISTAKE_MS - performance.now();
  if (wait > 0 && fresh.querySelector("[data-mistake], .empty")) await new Promise((resolve) => setTimeout(resolve, wait));
  merging = true;
};
hooks.after = () => {
  merging = false;
  for (const [id, moment] of cursors) point(document.getElementById(id), moment);
};

// The charts. The mouse or the arrow keys move a cursor, which stays at its time when the chart moves on.
const STEP_SECONDS = 5;
const cursors = new Map(); // id of a chart: the time of its cursor, in seconds since the epoch

function upgrade(root) {
  for (const chart of root.querySelectorAll("[data-chart]")) {
    chart.setAttribute("tabindex", "0");
    chart.setAttribute("role", "slider");
    chart.setAttribute("aria-valuemin", "0");
    chart.setAttribute("aria-valuemax", String(chart.dataset.moments - 1));
    const last = Number(chart.dataset.begin) + (chart.dataset.moments - 1) * STEP_SECONDS;
    chart.setAttribute("aria-valuenow", String(chart.dataset.moments - 1));
    chart.setAttribute("aria-valuetext", valueAt(chart, last));
  }
}

const placeOf = (chart, moment) => Math.round((moment - chart.dataset.begin) / STEP_SECONDS);

function valueAt(chart, moment) {
  const width = 360 / chart.dataset.moments;
  const place = placeOf(chart, moment);
  const known = [...chart.querySelectorAll(".moment")].find((each) => Math.round(each.getAttribute("x") / width) === place);
  return known ? known.textContent : `${new Date(moment * 1000).toLocaleTimeString("en-GB")}: no request`;
}

function point(chart, moment) {
  if (!chart) return;
  chart.querySelector(".cursor")?.remove();
  const output = chart.closest("figure").querySelector("output");
  const place = moment === null ? -1 : placeOf(chart, moment);
  if (place < 0 || place >= chart.dataset.moments) {
    cursors.delete(chart.id);
    output.textContent = "";
    return;
  }
  cursors.set(chart.id, moment);
  const width = 360 / chart.dataset.moments;
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of [["class", "cursor"], ["x", place * width], ["width", width], ["y", 0], ["height", 84]]) {
    cursor.setAttribute(name, value);
  }
  chart.prepend(cursor);
  const text = valueAt(chart, moment);
  chart.setAttribute("aria-valuenow", String(place));
  chart.setAttribute("aria-valuetext", text);
  output.textContent = text;
}

upgrade(document);
document.querySelector("#q")?.addEventListener("keydown", (event) => {
  const row = event.key === "ArrowDown" && document.querySelector("#rows a.row");
  if (!row) return;
  event.preventDefault();
  row.focus();
});
document.addEventListener("pointermove", (event) => {
  const over = event.target.closest?.("[data-chart]");
  for (const id of [...cursors.keys()]) {
    const chart = document.getElementById(id);
    if (chart !== over && chart !== document.activeElement) point(chart, null);
  }
  if (!over) return;
  const box = over.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999);
  point(over, Number(over.dataset.begin) + Math.floor(share * over.dataset.moments) * STEP_SECONDS);
});
document.addEventListener("focusin", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (chart && !cursors.has(chart.id)) {
    point(chart, Number(chart.dataset.begin) + (chart.dataset.moments - 1) * STEP_SECONDS);
  }
});
document.addEventListener("focusout", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (chart?.isConnected && !merging) point(chart, null);
});
document.addEventListener("keydown", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (!chart || event.ctrlKey || event.metaKey || event.altKey) return;
  const last = chart.dataset.moments - 1;
  const at = cursors.has(chart.id) ? placeOf(chart, cursors.get(chart.id)) : last;
  const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageUp: at + 12, PageDown: at - 12, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  point(chart, Number(chart.dataset.begin) + Math.min(Math.max(to, 0), last) * STEP_SECONDS);
});
