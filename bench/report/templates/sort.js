(() => {
  "use strict";
  const collator = new Intl.Collator(undefined, { numeric: true });
  const keyed = (row, index) => {
    const raw = row.cells[index].dataset.sort;
    const number = raw === undefined || raw === "" ? NaN : Number(raw);
    return { row, raw, number };
  };
  const sort = (table, head, index) => {
    const numeric = head.classList.contains("num");
    const first = numeric && !head.hasAttribute("data-ascending") ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    const sign = next === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => keyed(row, index));
    rows.sort((a, b) => {
      if (a.raw === undefined || b.raw === undefined) return (a.raw === undefined) - (b.raw === undefined);
      if (Number.isNaN(a.number) || Number.isNaN(b.number)) return sign * collator.compare(a.raw, b.raw);
      return sign * (a.number - b.number);
    });
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    body.append(...rows.map((entry) => entry.row));
  };
  document.documentElement.classList.add("js");
  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
      const button = head.querySelector("button");
      button.disabled = false;
      button.addEventListener("click", () => sort(table, head, index));
    });
  }
})();
