// Keeps the page as the server would render it now. Everything works without this, by links and forms.
"use strict";

document.documentElement.classList.add("js"); // shows what works with this alone

const LEAST_MS = 1000; // from one refresh to the next
const TICK_MS = 5000; // for figures that change as time goes by
const live = document.querySelector("#live");
const shown = { version: document.body.dataset.version, latest: document.body.dataset.version };
let fetching = null;
let refreshed = 0;
let waiting = 0;
let pressed = false; // what is being clicked must not be replaced
document.addEventListener("pointerdown", () => (pressed = true));
for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => setTimeout(() => (pressed = false)));

// What a view does with a fresh document before it is taken over, and afterwards.
const hooks = { before: async () => {}, after: () => {} };

// Whether text is selected, which a refresh would take away; a text box keeps its own.
const isCopying = () => !document.activeElement?.matches("input") && String(document.getSelection()).length > 0;
const isLive = () => live.getAttribute("aria-pressed") === "true";

// Puts `fresh` in the place of `old`, and leaves alone what is the same, with its focus and its selection.
function merge(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (!("keyed" in old.dataset)) {
    const focused = old.contains(document.activeElement) && document.activeElement.id;
    old.replaceWith(fresh);
    if (focused) document.getElementById(focused)?.focus();
    return;
  }
  const known = new Map([...old.children].map((child) => [child.id, child]));
  let place = old.firstElementChild;
  for (const child of [...fresh.children]) {
    const same = known.get(child.id);
    if (same) known.delete(child.id);
    if (same && same.isEqualNode(child)) {
      if (same === place) place = place.nextElementSibling;
      else old.insertBefore(same, place);
      continue;
    }
    if (same && same === place) place = place.nextElementSibling;
    const focused = same?.contains(document.activeElement);
    same?.remove();
    old.insertBefore(child, place);
    if (focused) (child.matches("[tabindex]") ? child : child.querySelector("a"))?.focus({ preventScroll: true });
  }
  for (const gone of known.values()) gone.remove();
}

// Fetches this address again and takes over every part that is marked as live.
async function refresh() {
  fetching?.abort();
  const mine = (fetching = new AbortController());
  const version = shown.latest;
  try {
    const answer = await fetch(location.href, { signal: mine.signal, headers: { accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    await hooks.before(fresh);
    if (mine.signal.aborted) return;
    document.dispatchEvent(new CustomEvent("view:fresh", { detail: fresh }));
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      if (old) merge(old, part);
    }
    shown.version = version;
    hooks.after();
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error; // TypeError: the server is gone
  } finally {
    if (fetching === mine) fetching = null;
    refreshed = performance.now();
  }
}

function later() {
  if (waiting || !isLive() || document.hidden) return;
  const pause = fetching ? LEAST_MS : Math.max(0, refreshed + LEAST_MS - performance.now());
  waiting = setTimeout(async () => {
    waiting = 0;
    if (fetching) return later();
    if (!isLive() || document.hidden || shown.version === shown.latest) return;
    if (isCopying() || pressed) return later();
    await refresh();
    if (shown.version !== shown.latest) later();
  }, pause);
}

const events = new EventSource(document.body.dataset.events);
function connected(isConnected) {
  live.classList.toggle("ended", !isConnected);
  live.querySelector("span").textContent = isConnected ? (isLive() ? "Live" : "Paused") : "Disconnected";
  const words = "Disconnected: the server has ended. This is what it showed last; it goes on by itself when the server is back.";
  document.querySelector("#ended").textContent = isConnected ? "" : words;
}
events.onopen = () => connected(true);
events.onerror = () => connected(false);
events.onmessage = (message) => {
  shown.latest = message.data;
  if (shown.version === shown.latest) return;
  if (document.querySelector("[data-reload]")) location.reload();
  else later();
};
document.addEventListener("visibilitychange", later);
live.addEventListener("click", () => {
  live.setAttribute("aria-pressed", String(!isLive()));
  live.querySelector("span").textContent = isLive() ? "Live" : "Paused";
  later();
});
if (document.querySelector("[data-ticking]")) {
  setInterval(() => isLive() && !document.hidden && !fetching && refresh(), TICK_MS);
}

async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(await text());
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser does not allow it";
  }
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
