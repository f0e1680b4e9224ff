/* The table of runs: filtered, sorted, chosen, and fetched anew. */
"use strict";

const table = document.getElementById("table"), filter = document.getElementById("filter"), show = document.getElementById("show");
const chosen = new Set();
let order = { column: null, falling: false };

/** Hides the rows without the text of the filter, orders the others, and marks what is chosen. */
function arrange() {
  const body = table.querySelector("tbody"), words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!body) return;
  const rows = [...body.rows];
  for (const row of rows) {
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const box = row.querySelector("input");
    box.checked = chosen.has(box.value);
  }
  document.getElementById("count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} runs`;
  for (const note of table.querySelectorAll(".note")) note.hidden = !words.every((word) => note.textContent.toLowerCase().includes(word));
  for (const [i, head] of [...table.querySelectorAll("thead th")].entries()) {
    if (i) head.setAttribute("aria-sort", order.column !== i ? "none" : order.falling ? "descending" : "ascending");
  }
  if (order.column !== null) {
    const key = (row) => { const cell = row.cells[order.column]; return cell.dataset.sort ?? cell.textContent.trim(); };
    const less = (a, b) => {
      const [p, q] = [key(a), key(b)];
      if (p === "" || q === "") return p === q ? 0 : p === "" ? 1 : -1; // what is empty comes last
      const numbers = Number(p) - Number(q);
      return (order.falling ? -1 : 1) * (Number.isNaN(numbers) ? p.localeCompare(q, undefined, { numeric: true }) : numbers);
    };
    body.append(...rows.sort(less));
  }
  show.disabled = !chosen.size;
}

table.addEventListener("click", (event) => {
  const button = event.target.closest("button.sort");
  if (!button) return;
  const column = Number(button.dataset.column);
  order = { column, falling: order.column === column ? !order.falling : false };
  arrange();
});
table.addEventListener("change", (event) => {
  if (event.target.name !== "run") return;
  if (event.target.checked) chosen.add(event.target.value); else chosen.delete(event.target.value);
  show.disabled = !chosen.size;
});
filter.addEventListener("input", arrange);
show.addEventListener("click", () => { location.href = `view?${new URLSearchParams([...chosen].map((run) => ["run", run]))}`; });
arrange();
again(2, async () => {
  const focused = document.activeElement && document.activeElement.closest("#table") ? document.activeElement : null;
  const mark = focused && (focused.value ? `input[value="${CSS.escape(focused.value)}"]` : focused.dataset.column ? `button[data-column="${focused.dataset.column}"]` : focused.getAttribute("href") ? `a[href="${CSS.escape(focused.getAttribute("href"))}"]` : null);
  if (await replaceWith(table, "table")) {
    arrange();
    if (mark && table.querySelector(mark)) table.querySelector(mark).focus();
  }
});
