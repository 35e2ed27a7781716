// The views of many traces: search while typing, filters, and the values of the charts.
// Without JavaScript, the same works with links and forms.
"use strict";

const MISTAKE_MS = 250; // after the last key, before a mistake or an empty result is shown

const form = document.querySelector("[data-search]");
let typedAt = 0;

if (form) {
  const apply = () => {
    const fields = [...new FormData(form)].filter(([, value]) => value !== "");
    const all = new URLSearchParams(location.search).has("all") ? [["all", "1"]] : [];
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams([...fields, ...all])}`);
    refresh();
  };
  form.addEventListener("input", (event) => {
    typedAt = event.target.matches("select, [type=checkbox]") ? 0 : performance.now();
    apply();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    typedAt = 0;
    apply();
  });
  const entries = (each) => new URLSearchParams(new FormData(each)).toString();
  const rendered = new DOMParser().parseFromString(form.outerHTML, "text/html").forms[0];
  if (entries(form) !== entries(rendered)) apply(); // a field was changed before this script ran
}

let merging = false; // while a fetched document is merged, an element loses the focus only for a moment
hooks.before = async (fresh) => {
  for (const open of document.querySelectorAll("details[id][open]")) {
    fresh.getElementById(open.id)?.setAttribute("open", "");
  }
  makeSliders(fresh);
  const wait = typedAt + MISTAKE_MS - performance.now();
  if (wait > 0 && fresh.querySelector("[data-mistake], .empty")) await new Promise((resolve) => setTimeout(resolve, wait));
  merging = true;
};
hooks.after = () => {
  merging = false;
  for (const [id, time] of cursors) moveCursor(document.getElementById(id), time);
};

// The charts. The mouse or the arrow keys move a cursor, which stays at its time when the chart moves on.
const WIDTH = 360; // as in charts.py
const HEIGHT = 84;
const BUCKET_SECONDS = 5;
const cursors = new Map(); // id of a chart: the time of its cursor, in seconds since the epoch

// Makes the charts in `root` reachable by keyboard and readable by screen readers.
function makeSliders(root) {
  for (const chart of root.querySelectorAll("[data-chart]")) {
    chart.setAttribute("tabindex", "0");
    chart.setAttribute("role", "slider");
    chart.setAttribute("aria-valuemin", "0");
    chart.setAttribute("aria-valuemax", String(lastIndex(chart)));
    chart.setAttribute("aria-valuenow", String(lastIndex(chart)));
    chart.setAttribute("aria-valuetext", valueAt(chart, timeOf(chart, lastIndex(chart))));
  }
}

// A bucket has an index, and the time at which it begins, in seconds since the epoch.
const lastIndex = (chart) => chart.dataset.buckets - 1;
const indexOf = (chart, time) => Math.round((time - chart.dataset.begin) / BUCKET_SECONDS);
const timeOf = (chart, index) => Number(chart.dataset.begin) + index * BUCKET_SECONDS;

function valueAt(chart, time) {
  const width = WIDTH / chart.dataset.buckets;
  const index = indexOf(chart, time);
  const bucket = [...chart.querySelectorAll(".bucket")].find((each) => Math.round(each.getAttribute("x") / width) === index);
  return bucket ? bucket.textContent : `${new Date(time * 1000).toLocaleTimeString("en-GB")}: no request`;
}

// Moves the cursor of `chart` to `time`, or removes it if `time` is null or no longer in the chart.
function moveCursor(chart, time) {
  if (!chart) return;
  chart.querySelector(".cursor")?.remove();
  const output = chart.closest("figure").querySelector("output");
  const index = time === null ? -1 : indexOf(chart, time);
  if (index < 0 || index > lastIndex(chart)) {
    cursors.delete(chart.id);
    output.textContent = "";
    return;
  }
  cursors.set(chart.id, time);
  const width = WIDTH / chart.dataset.buckets;
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of [["class", "cursor"], ["x", index * width], ["width", width], ["y", 0], ["height", HEIGHT]]) {
    cursor.setAttribute(name, value);
  }
  chart.prepend(cursor);
  const text = valueAt(chart, time);
  chart.setAttribute("aria-valuenow", String(index));
  chart.setAttribute("aria-valuetext", text);
  output.textContent = text;
}

makeSliders(document);
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
    if (chart !== over && chart !== document.activeElement) moveCursor(chart, null);
  }
  if (!over) return;
  const box = over.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999);
  moveCursor(over, timeOf(over, Math.floor(share * over.dataset.buckets)));
});
document.addEventListener("focusin", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (chart && !cursors.has(chart.id)) moveCursor(chart, timeOf(chart, lastIndex(chart)));
});
document.addEventListener("focusout", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (chart?.isConnected && !merging) moveCursor(chart, null);
});
document.addEventListener("keydown", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (!chart || event.ctrlKey || event.metaKey || event.altKey) return;
  const last = lastIndex(chart);
  const at = cursors.has(chart.id) ? indexOf(chart, cursors.get(chart.id)) : last;
  const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageUp: at + 12, PageDown: at - 12, Home: 0, End: last };
  if (!(event.key in moves)) return;
  event.preventDefault();
  moveCursor(chart, timeOf(chart, Math.min(Math.max(moves[event.key], 0), last)));
});
