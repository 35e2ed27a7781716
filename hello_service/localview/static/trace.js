// One trace: choosing a span, collapsing rows, paging through errors and matches, searching. Without JavaScript, everything
// except collapsing works with links and forms. Expanded and collapsed rows stay so when the page is refreshed.
"use strict";
{
  const SEARCH_MS = 250; // after the last key
  const detail = document.querySelector("#detail");
  const find = document.querySelector("#find");
  const toggled = new Map(); // id of a row that was expanded or collapsed: whether it is expanded
  let choosing = null; // the AbortController of the request for the details of a span
  let paging = Promise.resolve();

  const rows = (root = document) => [...root.querySelectorAll("#spans > [role=row]")];
  const chosen = () => document.querySelector("#spans > [aria-selected]");
  const levelOf = (row) => Number(row.ariaLevel);
  const address = (link) => new URL(link.getAttribute("href"), location.href);

  // Hides the rows in `root` that are below a collapsed row, and shows the others.
  function applyFolds(root = document) {
    let closed = Infinity; // the level of the last collapsed row; deeper rows are hidden
    for (const row of rows(root)) {
      const level = levelOf(row);
      if (level <= closed) closed = Infinity;
      row.hidden = closed < Infinity || "out" in row.dataset;
      const expanded = toggled.get(row.id);
      if (expanded !== undefined && row.ariaExpanded !== null) row.ariaExpanded = String(expanded);
      if (closed === Infinity && row.ariaExpanded === "false") closed = level;
    }
  }

  function toggle(row, expanded = row.ariaExpanded !== "true") {
    toggled.set(row.id, expanded);
    row.ariaExpanded = String(expanded);
    applyFolds();
  }

  function parentOf(row) {
    let above = row.previousElementSibling;
    while (above && levelOf(above) >= levelOf(row)) above = above.previousElementSibling;
    return above;
  }

  // Expands the ancestors of `row`, and scrolls it into view.
  function reveal(row, block = "nearest") {
    if (row.hidden) {
      for (let above = parentOf(row); above; above = parentOf(above)) toggled.set(above.id, true);
      applyFolds();
    }
    row.scrollIntoView({ block });
  }

  // Merges the parts of a fragment into the page, as a refresh does.
  function mergeFragment(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    document.dispatchEvent(new CustomEvent("view:fresh", { detail: fresh }));
    for (const part of fresh.querySelectorAll("[data-live]")) merge(document.getElementById(part.id), part);
  }

  // Chooses the span in the address `to` and fetches its details. With `opens`, shows them if they were closed.
  async function choose(to, opens = true) {
    const span = to.searchParams.get("span");
    const row = document.getElementById(`s${span}`);
    const scroll = row && chosen() !== row;
    chosen()?.removeAttribute("aria-selected");
    row?.setAttribute("aria-selected", "true");
    history.replaceState(null, "", to.search);
    if (opens) document.body.className = "trace details-open";
    if (row) reveal(row);
    choosing?.abort();
    const controller = (choosing = new AbortController());
    try {
      const response = await fetch(`${location.pathname}/span/${span}${to.search}`, { signal: controller.signal });
      mergeFragment(await response.text());
      if (scroll) detail.scrollTop = 0;
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error; // TypeError: the server has stopped
    }
  }

  function close() {
    document.body.className = "trace details-closed";
    const to = new URL(location.href);
    to.searchParams.set("span", "none");
    history.replaceState(null, "", to.search);
    chosen()?.focus({ preventScroll: true });
  }

  // Chooses the next or previous error or match. The queue keeps fast key presses in order.
  function goTo(list, direction) {
    paging = paging.then(async () => {
      const link = document.querySelector(`[data-choose="${list}-${direction}"]`);
      if (link) await choose(address(link));
    });
  }

  // Changes the address to `to`, and shows its page.
  async function show(to) {
    history.replaceState(null, "", to.search || location.pathname);
    await refresh();
    document.dispatchEvent(new CustomEvent("view:rows"));
  }

  document.addEventListener("view:fresh", ({ detail: fresh }) => {
    applyFolds(fresh);
    if (fresh.querySelector("#span")?.dataset.id !== document.querySelector("#span").dataset.id) return;
    for (const old of document.querySelectorAll("#detail details[id]")) {
      const same = fresh.getElementById(old.id);
      if (same) same.open = old.open;
    }
  });

  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const row = event.target.closest("#spans > [role=row]");
    const link = event.target.closest("[data-choose], [data-show], [data-close], [data-level]") ?? row?.querySelector("a");
    if (!link) { // a click elsewhere closes the choices for a value of a tag
      for (const value of document.querySelectorAll("details.value[open]")) if (!value.contains(event.target)) value.open = false;
      return;
    }
    event.preventDefault();
    if ("close" in link.dataset) return close();
    if ("show" in link.dataset) return void show(address(link));
    if ("level" in link.dataset) return collapseTo(Number(link.dataset.level));
    // A click on the arrow of a row, or anywhere on a row of folded siblings, expands or collapses it.
    if (row && (event.target.closest(".name i") || row.id.startsWith("g")) && row.ariaExpanded !== null) {
      row.focus({ preventScroll: true });
      return toggle(row);
    }
    if (row) row.focus({ preventScroll: true });
    choose(address(link)).then(() => {
      if (link.dataset.choose && !link.isConnected) { // the response has replaced it, so its replacement gets the focus
        const list = link.dataset.choose.split("-")[0];
        (document.querySelector(`[data-choose="${link.dataset.choose}"]`) ?? document.querySelector(`[data-choose^="${list}-"]`))?.focus();
      }
    });
  });

  // Collapses the rows from `level` on and expands those above; 0 expands all.
  function collapseTo(level) {
    for (const row of rows()) if (row.ariaExpanded !== null) toggled.set(row.id, !level || levelOf(row) < level);
    applyFolds();
    const focused = document.activeElement.closest("#spans > [role=row]");
    let visible = focused;
    while (visible?.hidden) visible = parentOf(visible);
    if (visible !== focused) visible?.focus();
    document.dispatchEvent(new CustomEvent("view:rows"));
  }

  document.addEventListener("view:move", ({ target }) => {
    if (target.matches("#spans > :not([id^=g])")) choose(address(target.querySelector("a")), false);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      const value = document.querySelector("details.value[open]");
      if (value) value.open = false;
      else if (event.target !== find) close();
      return;
    }
    if (event.target.matches("input, select, textarea")) return;
    const row = event.target.matches("#spans > [role=row]") ? event.target : null;
    if (event.key === "]") goTo("error", "Next");
    else if (event.key === "[") goTo("error", "Previous");
    else if (event.key === "n") goTo("match", "Next");
    else if (event.key === "p") goTo("match", "Previous");
    else if (/^[0-9]$/.test(event.key)) collapseTo(Number(event.key));
    else if (row && event.key === "Enter") row.querySelector("a").click();
    else if (row && event.key === "ArrowRight") {
      if (row.ariaExpanded === "false") toggle(row);
      else if (row.ariaExpanded === "true") row.nextElementSibling?.focus();
    } else if (row && event.key === "ArrowLeft") {
      if (row.ariaExpanded === "true") toggle(row, false);
      else parentOf(row)?.focus();
    } else return;
    event.preventDefault();
  });

  // Returns the address with the text of the search box. Forgets which rows were collapsed, so that all matches are shown.
  const searchAddress = () => {
    toggled.clear();
    const to = new URL(location.href);
    if (find.value) to.searchParams.set("find", find.value);
    else to.searchParams.delete("find");
    return to;
  };
  let timer = 0; // of the search
  find.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => show(searchAddress()), SEARCH_MS);
  });
  find.form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    if (searchAddress().search !== location.search) await show(searchAddress());
    goTo("match", "Next");
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      goTo("match", "Previous");
    }
  });

  if (chosen()) reveal(chosen(), "center");
  if (find.value !== find.defaultValue) show(searchAddress()); // text was typed before this script ran
}
