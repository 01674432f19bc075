/* Sorting, download, the switch between "± " and intervals, and folding for every table of class book-table: columns that
   do not fit lie in a row beneath, opened by a button in the first column. Without this file, or in print, the tables
   stand as they are. Full numbers: <span class="n" data-n="value low high">short text</span>. */
(() => {
  const numbers = (cell) => {
    const span = cell.querySelector(".n");
    return span ? span.dataset.n.split(" ") : null;
  };
  // What a cell says, without its mark, as a field of a CSV file.
  const words = (cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll(".rank, .dt-column-order, .unfold").forEach((part) => part.remove());
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
  const isNumber = (cell) => {
    const span = cell.querySelector(".n");
    return span && words(cell) === span.textContent.trim();
  };
  const rowsOf = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("child"));
  const field = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);

  // As the page has the rows now; a column with intervals has two more behind it.
  const csv = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const rows = rowsOf(table).map((row) => [...row.cells]);
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

  // Of every column how long it stays where not all fit: a small number is folded last. Of equals, the right one is folded
  // first. The first column, the table's main number and what tells the rows apart stay longest.
  const importance = (table) => {
    const rows = rowsOf(table);
    const columns = [...table.tHead.rows[0].cells].map((head, i) => {
      const cells = rows.map((row) => row.cells[i]);
      return {
        name: words(head),
        labels: cells[0].tagName === "TH",
        alike: rows.length > 1 && new Set(cells.map(words)).size === 1,
        share: new Set(cells.map(words)).size / rows.length,
        interval: cells.some((cell) => isNumber(cell) && numbers(cell).length === 3),
        number: cells.some(isNumber),
        long: cells.some((cell) => cell.classList.contains("long")),
      };
    });
    const candidates = columns.slice(1).filter((column) => !column.alike && !column.labels);
    const main =
      columns.slice(1).find((column) => /^ROC-AUC$|^verdict/.test(column.name)) ??
      candidates.find((column) => column.interval) ??
      candidates.find((column) => column.number);
    return columns.map((column, i) => {
      if (i === 0) return 0;
      if (column === main) return 1;
      if (column.alike) return 7;
      if (/^(claim|cohort)$/.test(column.name)) return 2;
      if (column.labels) return 3 - column.share; // the more rows it tells apart
      if (/difference|over_|change|less|effect/.test(column.name)) return 3;
      return column.interval ? 3 : column.number ? 4 : column.long ? 6 : 5;
    });
  };

  // What is folded of a row: names and cells as they stand in the table, formulas and intervals included.
  const folded = (api, row, columns) => {
    const list = document.createElement("dl");
    columns.filter((column) => column.hidden).forEach((column) => {
      const name = document.createElement("dt");
      const value = document.createElement("dd");
      name.textContent = words(api.column(column.columnIndex).header());
      value.append(...[...api.cell(row, column.columnIndex).node().cloneNode(true).childNodes]);
      if (!value.textContent.trim() && !value.querySelector("img")) value.textContent = "–";
      value.querySelectorAll("[id]").forEach((copy) => copy.removeAttribute("id"));
      list.append(name, value);
    });
    return list.childElementCount ? list : false;
  };

  // A button in every row and one for all rows; the style sheet shows them where columns are folded.
  const unfolding = (table, api, tools, caption) => {
    const all = button("all columns", `open the folded columns of every row: ${caption}`, (made) => {
      const on = made.getAttribute("aria-pressed") !== "true";
      table.querySelectorAll(`.unfold[aria-expanded="${!on}"]`).forEach((one) => one.click());
      made.setAttribute("aria-pressed", on);
    });
    all.classList.add("unfold-all");
    all.setAttribute("aria-pressed", false);
    let label = "";
    rowsOf(table).forEach((row) => {
      label = words(row.cells[0]) || label; // an empty one goes on with that above
      const others = [...row.cells].slice(1).filter((cell) => cell.tagName === "TH").map(words);
      const one = button("", `folded columns of: ${[label, ...others].join(", ")}`, () => {});
      one.className = "unfold";
      one.setAttribute("aria-expanded", false);
      (row.cells[0].querySelector("p") ?? row.cells[0]).prepend(one);
    });
    api.on("responsive-display", (event, _, row, open) =>
      row.node().querySelector(".unfold").setAttribute("aria-expanded", open)
    );
    // DataTables leaves a mark (delegateTarget) on the event, which the script of the copy buttons would take for its own.
    table.addEventListener("click", (event) => event.target.closest(".unfold") && event.stopPropagation());
    tools.append(all);
  };

  const none = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
  const upgrade = (table, number) => {
    if (!table.tHead || !table.tBodies.length || !table.tBodies[0].rows.length) return;
    const rows = rowsOf(table);
    const heads = [...table.tHead.rows[0].cells];
    const plain = rows.every((row) => row.cells.length === heads.length);
    const box = table.closest(".table-box, .pst-scrollable-table-container") ?? table;
    box.classList.add("table-box");
    heads.forEach((cell) => cell.setAttribute("scope", "col"));
    rows.forEach((row) => row.cells[0].tagName === "TD" && row.cells[0].setAttribute("role", "rowheader"));
    const caption = table.caption ? table.caption.textContent.trim() : `table ${number}`;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", caption);

    const tools = document.createElement("div");
    tools.className = "table-tools";
    let refit = () => {};
    const fit = () => {
      const before = table.classList.contains("collapsed");
      refit();
      if (table.classList.contains("collapsed") !== before) refit(); // the buttons need their room
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; // to be scrolled by keys
      else box.removeAttribute("tabindex");
    };
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
          fit();
        })
      );
    }
    box.after(tools);
    if (plain && window.DataTable?.Responsive) {
      rows.forEach((row) =>
        [...row.cells].forEach((cell) => isNumber(cell) && (cell.dataset.order = numbers(cell)[0]))
      );
      const priorities = importance(table);
      const api = new window.DataTable(table, {
        ...{ paging: false, searching: false, info: false, autoWidth: false, order: [], layout: none },
        ordering: rows.length > 2 && !table.classList.contains("unsorted"),
        columnDefs: heads.map((_, i) => ({ targets: i, responsivePriority: priorities[i] })),
        responsive: { details: { type: "column", target: "button.unfold", renderer: folded } },
      });
      unfolding(table, api, tools, caption);
      refit = () => api.responsive.recalc();
    }
    // A box that was hidden has its width when it is opened; formulas are set late.
    let width = 0;
    new ResizeObserver(() => {
      if (box.clientWidth === width) return;
      width = box.clientWidth;
      fit();
    }).observe(box);
    if (table.querySelector(".math")) window.MathJax?.startup?.promise?.then(fit);
  };

  const all = () => document.querySelectorAll("table.book-table").forEach((table, i) => upgrade(table, i + 1));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
