// One trace: choosing a span, collapsing rows, paging through errors and matches, searching. Without JavaScript, everything
// except collapsing works with links and forms. Expanded and collapsed rows stay so when the page is refreshed.
"use strict";
{
  const SEARCH_MS = 250; // how long after the last key the search starts
  const detail = document.querySelector("#detail");
  const searchBox = document.querySelector("#find");
  const toggled = new Map(); // id of a row that was expanded or collapsed: whether it is expanded
  let detailsRequest = null; // the AbortController of the request for the details of a span
  let pagingQueue = Promise.resolve();

  const rows = (root = document) => [...root.querySelectorAll("#spans > [role=row]")];
  const chosenRow = () => document.querySelector("#spans > [aria-selected]");
  const levelOf = (row) => Number(row.ariaLevel);
  const addressOf = (link) => new URL(link.getAttribute("href"), location.href);

  // Hides the rows in `root` that are below a collapsed row, and shows the others, except those of other services.
  function applyFolds(root = document) {
    let collapsedLevel = Infinity; // the level of the collapsed row above; the rows below it are deeper
    for (const row of rows(root)) {
      const level = levelOf(row);
      if (level <= collapsedLevel) collapsedLevel = Infinity;
      row.hidden = collapsedLevel < Infinity || "filteredOut" in row.dataset;
      const expanded = toggled.get(row.id);
      if (expanded !== undefined && row.ariaExpanded !== null) row.ariaExpanded = String(expanded);
      if (collapsedLevel === Infinity && row.ariaExpanded === "false") collapsedLevel = level;
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

  // Chooses the span in the address `url` and fetches its details. With `opensDetails`, shows them if they were closed.
  async function choose(url, opensDetails = true) {
    const spanId = url.searchParams.get("span");
    const row = document.getElementById(`s${spanId}`);
    const isOtherRow = row && chosenRow() !== row;
    chosenRow()?.removeAttribute("aria-selected");
    row?.setAttribute("aria-selected", "true");
    history.replaceState(null, "", url.search);
    if (opensDetails) document.body.className = "trace details-open";
    if (row) reveal(row);
    detailsRequest?.abort();
    const controller = (detailsRequest = new AbortController());
    try {
      const response = await fetch(`${location.pathname}/span/${spanId}${url.search}`, { signal: controller.signal });
      mergeFragment(await response.text());
      if (isOtherRow) detail.scrollTop = 0;
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error; // TypeError: the server has stopped
    }
  }

  function closeDetails() {
    document.body.className = "trace details-closed";
    const url = new URL(location.href);
    url.searchParams.set("span", "none");
    history.replaceState(null, "", url.search);
    chosenRow()?.focus({ preventScroll: true });
  }

  // Chooses the next or previous error or match. `list` is `error` or `match`, `direction` is `Next` or `Previous`.
  // The queue keeps fast key presses in order.
  function goTo(list, direction) {
    pagingQueue = pagingQueue.then(async () => {
      const link = document.querySelector(`[data-choose="${list}-${direction}"]`);
      if (link) await choose(addressOf(link));
    });
  }

  // Changes the address to `url`, and shows its page.
  async function showPage(url) {
    history.replaceState(null, "", url.search || location.pathname);
    await refresh();
    document.dispatchEvent(new CustomEvent("view:rows"));
  }

  document.addEventListener("view:fresh", ({ detail: fresh }) => {
    applyFolds(fresh);
    if (fresh.querySelector("#span")?.dataset.id !== document.querySelector("#span").dataset.id) return; // another span
    for (const details of document.querySelectorAll("#detail details[id]")) {
      const freshDetails = fresh.getElementById(details.id);
      if (freshDetails) freshDetails.open = details.open;
    }
  });

  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const row = event.target.closest("#spans > [role=row]");
    const link = event.target.closest("[data-choose], [data-show], [data-close], [data-level]") ?? row?.querySelector("a");
    if (!link) { // a click elsewhere closes the choices for a value of a tag
      for (const value of document.querySelectorAll("details.value[open]")) {
        if (!value.contains(event.target)) value.open = false;
      }
      return;
    }
    event.preventDefault();
    if ("close" in link.dataset) return closeDetails();
    if ("show" in link.dataset) {
      showPage(addressOf(link));
      return;
    }
    if ("level" in link.dataset) return collapseTo(Number(link.dataset.level));
    // A click on the arrow of a row, or anywhere on a row of folded siblings, expands or collapses it.
    if (row && (event.target.closest(".name i") || row.id.startsWith("g")) && row.ariaExpanded !== null) {
      row.focus({ preventScroll: true });
      return toggle(row);
    }
    if (row) row.focus({ preventScroll: true });
    choose(addressOf(link)).then(() => {
      const { choose: name } = link.dataset; // such as error-Next; empty for a link without a list
      if (!name || link.isConnected) return;
      // The response has replaced the link. Its replacement receives the focus, or the link in the other direction.
      const list = name.split("-")[0];
      const replacement = document.querySelector(`[data-choose="${name}"]`) ?? document.querySelector(`[data-choose^="${list}-"]`);
      replacement?.focus();
    });
  });

  // Collapses the rows from `level` on and expands those above; 0 expands all.
  function collapseTo(level) {
    for (const row of rows()) {
      if (row.ariaExpanded !== null) toggled.set(row.id, level === 0 || levelOf(row) < level);
    }
    applyFolds();
    const focused = document.activeElement.closest("#spans > [role=row]");
    let visible = focused;
    while (visible?.hidden) visible = parentOf(visible);
    if (visible !== focused) visible?.focus(); // the focused row is hidden now, so an ancestor receives the focus
    document.dispatchEvent(new CustomEvent("view:rows"));
  }

  document.addEventListener("view:move", ({ target }) => {
    // A row of folded siblings, whose id starts with g, has no span to choose.
    if (target.matches("#spans > :not([id^=g])")) choose(addressOf(target.querySelector("a")), false);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      const value = document.querySelector("details.value[open]");
      if (value) value.open = false;
      else if (event.target !== searchBox) closeDetails();
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
    const url = new URL(location.href);
    if (searchBox.value) url.searchParams.set("find", searchBox.value);
    else url.searchParams.delete("find");
    return url;
  };
  let timer = 0; // for the search
  searchBox.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => showPage(searchAddress()), SEARCH_MS);
  });
  searchBox.form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    if (searchAddress().search !== location.search) await showPage(searchAddress());
    goTo("match", "Next");
  });
  searchBox.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      goTo("match", "Previous");
    }
  });

  if (chosenRow()) reveal(chosenRow(), "center");
  if (searchBox.value !== searchBox.defaultValue) showPage(searchAddress()); // text was typed before this script ran
}
