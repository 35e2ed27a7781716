// Keyboard shortcuts of every view: the arrow keys, j, k, Home and End move between rows, `/` focuses the search, and `?`
// lists the shortcuts. The attribute data-roving marks a list and selects its rows. Tab reaches only one row of a list.
"use strict";
{
  const current = new Map(); // id of a list: id of the row that Tab reaches
  const dialog = document.querySelector("#keys");
  const idOf = (row) => row.id || row.closest("[id]").id;
  const rowsOf = (list) => [...list.querySelectorAll(list.dataset.roving)];

  // Makes one row of each list in `root` reachable by Tab. `root` may be a fetched document before it is merged.
  function setTabStops(root) {
    for (const list of root.querySelectorAll("[data-roving]")) {
      const rows = rowsOf(list);
      const stop =
        rows.find((row) => idOf(row) === current.get(list.id)) ?? rows.find((row) => row.ariaSelected === "true") ?? rows[0];
      for (const row of rows) {
        row.tabIndex = row === stop ? 0 : -1;
        if (!row.matches("a")) for (const link of row.querySelectorAll("a")) link.tabIndex = -1;
      }
    }
  }

  // Returns the row that contains `target`, with its list.
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
    current.set(list.id, idOf(row));
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
      const at = row ? rows.indexOf(row) : -1;
      const moves = { ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, Home: 0, End: rows.length - 1 };
      if (!row && !["j", "k"].includes(event.key)) return;
      const next = event.key in moves && (row ? rows[moves[event.key]] : rows.find((each) => each.tabIndex === 0));
      if (event.key in moves && (row || next)) event.preventDefault();
      if (!next) return;
      next.focus();
      next.dispatchEvent(new CustomEvent("view:move", { bubbles: true }));
    }
  });
  document.querySelector("#show-keys").addEventListener("click", () => dialog.showModal());
  setTabStops(document);
}
