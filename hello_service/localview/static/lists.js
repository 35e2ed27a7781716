// The views of many traces: search while typing, filters, and the values of the charts.
// Without JavaScript, search and filters work as forms and links.
"use strict";

const MISTAKE_MS = 250; // how long after the last key a mistake or an empty result is shown

const form = document.querySelector("[data-search]");
let typedAt = 0; // when the last key was pressed in a text field of the form

if (form) {
  const applyForm = () => {
    const fields = [...new FormData(form)].filter(([, value]) => value !== "");
    const all = new URLSearchParams(location.search).has("all") ? [["all", "1"]] : [];
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams([...fields, ...all])}`);
    refresh();
  };
  form.addEventListener("input", (event) => {
    typedAt = event.target.matches("select, [type=checkbox]") ? 0 : performance.now();
    applyForm();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    typedAt = 0;
    applyForm();
  });
  const queryOf = (formElement) => new URLSearchParams(new FormData(formElement)).toString();
  // outerHTML has the values that the server rendered, not those typed since.
  const renderedForm = new DOMParser().parseFromString(form.outerHTML, "text/html").forms[0];
  if (queryOf(form) !== queryOf(renderedForm)) applyForm(); // a field was changed before this script ran
}

let isMerging = false; // while a fetched document is merged, a chart loses the focus only for a moment
hooks.before = async (fresh) => {
  for (const details of document.querySelectorAll("details[id][open]")) {
    fresh.getElementById(details.id)?.setAttribute("open", "");
  }
  makeSliders(fresh);
  const wait = typedAt + MISTAKE_MS - performance.now();
  if (wait > 0 && fresh.querySelector("[data-mistake], .empty")) await new Promise((resolve) => setTimeout(resolve, wait));
  isMerging = true;
};
hooks.after = () => {
  isMerging = false;
  for (const [id, time] of cursors) moveCursor(document.getElementById(id), time);
};

// The charts. The mouse or the arrow keys move a cursor, which stays at its time when the chart moves on.
const WIDTH = 360; // of a chart, as in charts.py
const HEIGHT = 84;
const BUCKET_SECONDS = 5; // as in performance.py
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

// A bucket of a chart has an index and a time: when it starts, in seconds since the epoch.
const lastIndex = (chart) => chart.dataset.buckets - 1;
const indexOf = (chart, time) => Math.round((time - chart.dataset.begin) / BUCKET_SECONDS);
const timeOf = (chart, index) => Number(chart.dataset.begin) + index * BUCKET_SECONDS;

function valueAt(chart, time) {
  const width = WIDTH / chart.dataset.buckets;
  const index = indexOf(chart, time);
  const bucket = [...chart.querySelectorAll(".bucket")].find((rect) => Math.round(rect.getAttribute("x") / width) === index);
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
  const firstRow = event.key === "ArrowDown" && document.querySelector("#rows a.row");
  if (!firstRow) return;
  event.preventDefault();
  firstRow.focus();
});
document.addEventListener("pointermove", (event) => {
  const pointedChart = event.target.closest?.("[data-chart]");
  for (const id of [...cursors.keys()]) {
    const chart = document.getElementById(id);
    if (chart !== pointedChart && chart !== document.activeElement) moveCursor(chart, null);
  }
  if (!pointedChart) return;
  const box = pointedChart.getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  const index = Math.floor(share * pointedChart.dataset.buckets);
  moveCursor(pointedChart, timeOf(pointedChart, Math.min(Math.max(index, 0), lastIndex(pointedChart))));
});
document.addEventListener("focusin", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (chart && !cursors.has(chart.id)) moveCursor(chart, timeOf(chart, lastIndex(chart)));
});
document.addEventListener("focusout", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (chart?.isConnected && !isMerging) moveCursor(chart, null);
});
document.addEventListener("keydown", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  if (!chart || event.ctrlKey || event.metaKey || event.altKey) return;
  const last = lastIndex(chart);
  const index = cursors.has(chart.id) ? indexOf(chart, cursors.get(chart.id)) : last;
  const minute = 60 / BUCKET_SECONDS; // in buckets
  const moves = {
    ArrowLeft: index - 1, ArrowDown: index - 1, ArrowRight: index + 1, ArrowUp: index + 1,
    PageUp: index + minute, PageDown: index - minute, Home: 0, End: last,
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  moveCursor(chart, timeOf(chart, Math.min(Math.max(moves[event.key], 0), last)));
});
