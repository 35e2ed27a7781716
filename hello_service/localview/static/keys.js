// Keyboard shortcuts of every view: the arrow keys, j, k, Home and End move between rows, `/` focuses the search, and `?`
// lists the shortcuts. The attribute data-roving marks a list and selects its rows. Tab reaches only one row of a list.
// The event `view:fresh` has a fetched document before it is merged, `view:rows` follows a change of the rows shown,
// and `view:move` has the row to which a key has moved the focus.
"use strict";
{
  const tabStops = new Map(); // id of a list: id of the row that Tab reaches
  const dialog = document.querySelector("#keys");
  const idOf = (row) => row.id || row.closest("[id]").id; // in the list of traces, the element around the row has the id
  const rowsOf = (list) => [...list.querySelectorAll(list.dataset.roving)];

  // Makes one row of each list in `root` reachable by Tab. `root` may be a fetched document before it is merged.
  function setTabStops(root) {
    for (const list of root.querySelectorAll("[data-roving]")) {
      const rows = rowsOf(list);
      const tabStop =
        rows.find((row) => idOf(row) === tabStops.get(list.id)) ?? rows.find((row) => row.ariaSelected === "true") ?? rows[0];
      for (const row of rows) {
        row.tabIndex = row === tabStop ? 0 : -1;
        if (!row.matches("a")) for (const link of row.querySelectorAll("a")) link.tabIndex = -1;
      }
    }
  }

  // Returns the row that contains `target` and its list, or an empty object if no row contains it.
  function rowAt(target) {
    const list = target.closest?.("[data-roving]");
    const row = list && target.closest(list.dataset.roving);
    return row ? { list, row } : {};
  }

  document.addEventListener("view:fresh", (event) => setTabStops(event.detail));
  document.addEventListener("view:rows", () => setTabStops(document));
  document.addEventListener("focusin", (event) => {
    const { list, row } = rowAt(event.target);
    if (!row) return;
    tabStops.set(list.id, idOf(row));
    for (const other of list.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    row.tabIndex = 0;
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.target.matches("input, select, textarea")) return;
    if (event.key === "/") {
      const search = document.querySelector("main input[type=search]");
      if (!search) return;
      event.preventDefault();
      search.select();
    } else if (event.key === "?") {
      dialog.showModal();
    } else {
      const { list, row } = rowAt(event.target);
      const rows = list ? rowsOf(list) : [...document.querySelectorAll("[data-roving]")].flatMap(rowsOf);
      const index = row ? rows.indexOf(row) : -1;
      const moves = { ArrowDown: index + 1, j: index + 1, ArrowUp: index - 1, k: index - 1, Home: 0, End: rows.length - 1 };
      if (!(event.key in moves)) return;
      if (!row && !["j", "k"].includes(event.key)) return; // outside of a list, the other keys scroll the page
      const next = row ? rows[moves[event.key]] : rows.find((candidate) => candidate.tabIndex === 0);
      if (row || next) event.preventDefault();
      if (!next) return;
      next.focus();
      next.dispatchEvent(new CustomEvent("view:move", { bubbles: true }));
    }
  });
  document.querySelector("#show-keys").addEventListener("click", () => dialog.showModal());
  setTabStops(document);
}
