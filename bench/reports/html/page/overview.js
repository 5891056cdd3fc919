// The first page: tables that can be sorted.
"use strict";

rfbench.prepare.push(() => {
  const { make } = rfbench;

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      const button = make("button", { class: "sort", type: "button", onclick: () => sort(column) }, head.textContent);
      head.replaceChildren(button);
      if (head.title) button.title = head.title; // a title on what can have the focus
      head.removeAttribute("title");
    });

    function key(row, column) {
      const cell = row.cells[column];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      const text = cell.querySelector(".value")?.textContent ?? cell.textContent;
      return /^[+-]?[0-9.]+(e[+-]?[0-9]+)?$/i.test(text) ? Number(text) : text.trim();
    }

    /** The better end first, then the other, then as it was made. */
    function sort(column) {
      const head = heads[column];
      const first = head.dataset.direction === "up" ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const now = { [first]: other, [other]: null }[head.getAttribute("aria-sort")];
      const order = now === undefined ? first : now;
      for (const one of heads) one.removeAttribute("aria-sort");
      if (order === null) { body.append(...rows); return; }
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const sorted = rows.map((row, i) => [key(row, column), i, row]).sort(([a, i], [b, j]) => {
        const numbers = typeof a === "number" && typeof b === "number";
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number stands last
        const by = numbers ? a - b : String(a).localeCompare(String(b), "en");
        return sign * by || i - j;
      });
      body.append(...sorted.map(([, , row]) => row));
    }
  }
});
