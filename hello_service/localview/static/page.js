// Live updates: fetches the page again when the server reports a change, and replaces the parts that differ.
// Without JavaScript, the page works with links and forms.
"use strict";

document.documentElement.classList.add("js"); // shows the elements that need JavaScript

const REFRESH_MS = 1000; // minimum time between two refreshes
const TICK_MS = 5000; // refresh interval of figures that depend on the current time
const live = document.querySelector("#live");
const versions = { shown: document.body.dataset.version, latest: document.body.dataset.version }; // of the server's data
let fetching = null; // the AbortController of the running request
let refreshedAt = 0;
let timer = 0; // for the next refresh
let isPressed = false; // while the mouse button is down, no refresh may replace the element below the pointer
document.addEventListener("pointerdown", () => (isPressed = true));
for (const name of ["pointerup", "pointercancel"]) {
  document.addEventListener(name, () => setTimeout(() => (isPressed = false))); // after the click event, which follows
}

// Functions that a view may set: `before` receives the fetched document before its parts are merged, `after` runs afterwards.
const hooks = { before: async () => {}, after: () => {} };

// Returns whether text is selected on the page. A refresh would remove the selection, except in a text field.
const isTextSelected = () => !document.activeElement?.matches("input") && String(document.getSelection()).length > 0;
const isLive = () => live.getAttribute("aria-pressed") === "true";
const liveLabel = () => (isLive() ? "Live" : "Paused");

// Replaces `old` with `fresh`. If `old` has data-keyed, keeps those of its children that haven't changed, with their focus.
function merge(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (!("keyed" in old.dataset)) {
    const focusedId = old.contains(document.activeElement) && document.activeElement.id;
    old.replaceWith(fresh);
    if (focusedId) document.getElementById(focusedId)?.focus();
    return;
  }
  const unmatched = new Map([...old.children].map((child) => [child.id, child]));
  let next = old.firstElementChild;
  for (const child of [...fresh.children]) {
    const oldChild = unmatched.get(child.id);
    if (oldChild) unmatched.delete(child.id);
    if (oldChild && oldChild.isEqualNode(child)) {
      if (oldChild === next) next = next.nextElementSibling;
      else old.insertBefore(oldChild, next);
      continue;
    }
    if (oldChild && oldChild === next) next = next.nextElementSibling;
    const hadFocus = oldChild?.contains(document.activeElement);
    oldChild?.remove();
    old.insertBefore(child, next);
    if (hadFocus) (child.matches("[tabindex]") ? child : child.querySelector("a"))?.focus({ preventScroll: true });
  }
  for (const leftover of unmatched.values()) leftover.remove();
}

// Fetches the current address and merges every part that is marked with data-live.
async function refresh() {
  fetching?.abort();
  const controller = (fetching = new AbortController());
  const version = versions.latest;
  try {
    const response = await fetch(location.href, { signal: controller.signal, headers: { accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    await hooks.before(fresh);
    if (controller.signal.aborted) return;
    document.dispatchEvent(new CustomEvent("view:fresh", { detail: fresh }));
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      if (old) merge(old, part);
    }
    versions.shown = version;
    hooks.after();
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error; // TypeError: the server has stopped
  } finally {
    if (fetching === controller) fetching = null;
    refreshedAt = performance.now();
  }
}

// Refreshes once the page is live, visible and not in use, and `REFRESH_MS` have passed since the last refresh.
function scheduleRefresh() {
  if (timer || !isLive() || document.hidden) return;
  const delay = fetching ? REFRESH_MS : Math.max(0, refreshedAt + REFRESH_MS - performance.now());
  timer = setTimeout(async () => {
    timer = 0;
    if (fetching) return scheduleRefresh();
    if (!isLive() || document.hidden || versions.shown === versions.latest) return;
    if (isTextSelected() || isPressed) return scheduleRefresh();
    await refresh();
    if (versions.shown !== versions.latest) scheduleRefresh();
  }, delay);
}

const events = new EventSource(document.body.dataset.events);
function showConnection(isConnected) {
  live.classList.toggle("disconnected", !isConnected);
  live.querySelector("span").textContent = isConnected ? liveLabel() : "Disconnected";
  const message = "Disconnected: the server has stopped. The page shows its last state and updates again when the server is back.";
  document.querySelector("#disconnected").textContent = isConnected ? "" : message;
}
events.onopen = () => showConnection(true);
events.onerror = () => showConnection(false);
events.onmessage = (message) => {
  versions.latest = message.data;
  if (versions.shown === versions.latest) return;
  if (document.querySelector("[data-reload]")) location.reload();
  else scheduleRefresh();
};
document.addEventListener("visibilitychange", scheduleRefresh);
live.addEventListener("click", () => {
  live.setAttribute("aria-pressed", String(!isLive()));
  live.querySelector("span").textContent = liveLabel();
  scheduleRefresh();
});
if (document.querySelector("[data-ticking]")) {
  setInterval(() => {
    if (isLive() && !document.hidden && !fetching) refresh();
  }, TICK_MS);
}

// Copies the text that `getText` returns, and shows the result on `button` for two seconds.
async function copy(button, getText) {
  const label = button.textContent;
  let result = "The server does not respond";
  try {
    const text = await getText();
    result = "Not allowed by the browser";
    await navigator.clipboard.writeText(text);
    result = "Copied";
  } catch {
    // `result` explains the step that failed.
  }
  button.textContent = result;
  setTimeout(() => (button.textContent = label), 2000);
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const target = event.target.closest("[data-copy], [data-copy-link], [data-copy-from], [data-copy-value]");
  if (!target) return;
  event.preventDefault();
  const { copy: address, copyFrom: id, copyValue: value } = target.dataset;
  if (address) copy(target, async () => (await fetch(address)).text());
  else copy(target, async () => value ?? (id ? document.getElementById(id).textContent : location.href));
});
