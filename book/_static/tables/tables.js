/* Sorting, download and the switch between "± " and intervals for every table of class book-table. Without this file, or
   in print, the tables stand as they are. Full numbers: <span class="n" data-n="value low high">short text</span>. */
(() => {
  const numbers = (cell) => {
    const span = cell.querySelector(".n");
    return span ? span.dataset.n.split(" ") : null;
  };
  // What a cell says, without its mark, as a field of a CSV file.
  const words = (cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll(".rank, .dt-column-order").forEach((part) => part.remove());
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
  const isNumber = (cell) => {
    const span = cell.querySelector(".n");
    return span && words(cell) === span.textContent.trim();
  };
  const field = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);

  // As the page has the rows now; a column with intervals has two more behind it.
  const csv = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells]);
    const wide = heads.map((_, i) => rows.some((row) => row[i] && isNumber(row[i]) && numbers(row[i]).length === 3));
    const line = (fields) => fields.map(field).join(",");
    const head = heads.flatMap((cell, i) => {
      const name = words(cell);
      return wide[i] ? [name, `${name} lower`, `${name} upper`] : [name];
    });
    const body = rows.map((row) =>
      row.flatMap((cell, i) => {
        const told = isNumber(cell) ? numbers(cell) : [words(cell) === "–" ? "" : words(cell)];
        return wide[i] ? [told[0], told[1] ?? "", told[2] ?? ""] : [told[0]];
      })
    );
    return [head, ...body].map(line).join("\n") + "\n";
  };

  const save = (text, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const button = (text, label, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", () => action(made));
    return made;
  };

  // "0.77 ± 0.05" to "0.77 [0.72, 0.81]" and back.
  const asIntervals = (table, on) => {
    table.querySelectorAll(".n").forEach((span) => {
      const [value, low, high] = span.dataset.n.split(" ").map(Number);
      if (high === undefined) return;
      span.dataset.short ??= span.innerHTML;
      const sign = /^[+-]/.test(span.dataset.short);
      const shown = (x) => (sign && x >= 0 ? "+" : "") + x.toFixed(sign ? 3 : 2);
      span.innerHTML = on ? `${shown(value)} [${shown(low)}, ${shown(high)}]` : span.dataset.short;
    });
  };

  const upgrade = (table, number) => {
    if (!table.tHead || !table.tBodies.length || !table.tBodies[0].rows.length) return;
    const rows = [...table.tBodies[0].rows];
    const plain = rows.every((row) => row.cells.length === table.tHead.rows[0].cells.length);
    const box = table.closest(".table-box, .pst-scrollable-table-container") ?? table;
    box.classList.add("table-box");
    [...table.tHead.rows[0].cells].forEach((cell) => cell.setAttribute("scope", "col"));
    rows.forEach((row) => row.cells[0].tagName === "TD" && row.cells[0].setAttribute("role", "rowheader"));
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; // to be scrolled by keys
    const caption = table.caption ? table.caption.textContent.trim() : `table ${number}`;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", caption);

    const tools = document.createElement("div");
    tools.className = "table-tools";
    if (plain) {
      const page = location.pathname.split("/").pop().replace(/\.html$/, "") || "table";
      const name = `${page}_table_${number}.csv`;
      tools.append(button("CSV", `download as CSV: ${caption}`, () => save(csv(table), name)));
    }
    if (table.querySelector('.n[data-n*=" "]')) {
      tools.prepend(
        button("intervals", `show intervals: ${caption}`, (made) => {
          const on = made.getAttribute("aria-pressed") !== "true";
          made.setAttribute("aria-pressed", on);
          asIntervals(table, on);
        })
      );
    }
    box.after(tools);
    if (!plain || rows.length < 3 || table.classList.contains("unsorted") || !window.DataTable) return;
    rows.forEach((row) =>
      [...row.cells].forEach((cell) => isNumber(cell) && (cell.dataset.order = numbers(cell)[0]))
    );
    const none = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
    new window.DataTable(table, { paging: false, searching: false, info: false, autoWidth: false, order: [], layout: none });
  };

  const all = () => document.querySelectorAll("table.book-table").forEach((table, i) => upgrade(table, i + 1));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
