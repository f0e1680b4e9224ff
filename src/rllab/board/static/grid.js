/* A position on the page: a grid of buttons for games that have one, else its picture as text and the legal moves. */
"use strict";

const WHO = { 1: ["empty", "piece"], 2: ["empty", "X", "O"] };

class BoardView {
  /** act(name) is called with the move that is chosen; without it nothing can be chosen. */
  constructor(place, act) {
    [this.place, this.act, this.shape, this.cells, this.chosen, this.position] = [place, act, "", [], null, null];
  }

  /** Shows a position. The cells stay the same elements, and keep the focus. */
  show(position) {
    this.position = position;
    this.chosen = null;
    const grid = position.grid, shape = grid ? `${grid.kind} ${grid.rows} ${grid.columns}` : "text";
    if (shape !== this.shape) {
      this.shape = shape;
      this.place.replaceChildren(...(grid ? this.newGrid(grid) : [element("pre", "", { className: "picture", tabIndex: 0 })]), element("div", "", { className: "legal" }));
    }
    if (grid) this.fill(grid); else this.place.querySelector(".picture").textContent = position.picture || "(this game has no `show`)";
    const names = grid ? new Set(grid.names) : new Set(), jumps = grid && grid.kind === "jumps";
    const others = !this.act || jumps ? [] : position.legal.filter((name) => !names.has(name));
    this.place.querySelector(".legal").replaceChildren(...others.slice(0, 400).map((name) => {
      const button = element("button", name, { type: "button" });
      button.addEventListener("click", () => this.act(name));
      return button;
    }));
  }

  newGrid(grid) {
    const board = element("div", "", { className: "grid" });
    board.setAttribute("role", "group");
    board.setAttribute("aria-label", this.act ? "board; arrow keys move, Enter plays" : "board");
    board.style.setProperty("--columns", grid.columns);
    this.cells = grid.names.map((_, i) => {
      const cell = element(this.act ? "button" : "span", "", { className: "cell" });
      if (this.act) {
        cell.type = "button";
        cell.addEventListener("click", () => this.click(i));
        cell.addEventListener("keydown", (event) => this.move(event, i, grid));
      }
      return cell;
    });
    board.append(...this.cells);
    return [board];
  }

  fill(grid) {
    const legal = new Set(this.position.legal), starts = this.position.legal, named = grid.columns <= 10;
    const last = this.cells.findIndex((cell) => cell.tabIndex === 0 && cell.dataset.stop);
    this.cells.forEach((cell, i) => {
      const stone = grid.stones[i], name = grid.names[i];
      const open = this.act && (grid.kind === "jumps" ? stone > 0 && starts.some((move) => move.startsWith(name)) : grid.kind === "columns" ? stone === 0 && legal.has(name) && this.lowest(grid, i) : legal.has(name));
      cell.className = ["cell", stone < 0 ? "outside" : "", stone > 0 ? `s${stone}` : "", grid.changed.includes(i) ? "changed" : "", grid.line.includes(i) ? "line" : "", open ? "open" : ""].filter(Boolean).join(" ");
      const where = grid.kind === "columns" ? `column ${name}, row ${grid.rows - Math.floor(i / grid.columns)}` : name;
      if (named && stone >= 0 && (grid.kind !== "columns" || i < grid.columns)) cell.dataset.name = name;
      if (this.act) {
        cell.setAttribute("aria-label", `${where}, ${WHO[grid.players][Math.max(0, stone)]}${open ? ", legal" : ""}`);
        cell.setAttribute("aria-pressed", "false");
        if (grid.kind !== "jumps") cell.removeAttribute("aria-pressed");
        cell.disabled = stone < 0;
        cell.tabIndex = -1;
      }
    });
    if (!this.act) {
      this.place.querySelector(".grid").setAttribute("role", "img");
      this.place.querySelector(".grid").setAttribute("aria-label", `board\n${this.position.picture}`);
      return;
    }
    const stop = last >= 0 ? last : this.cells.findIndex((cell) => !cell.disabled);
    this.stop(stop);
  }

  /** Whether a free cell is where a stone of its column would come to rest, as far as the stones below tell. */
  lowest(grid, i) {
    const below = i + grid.columns;
    return below >= grid.stones.length || grid.stones[below] > 0;
  }

  /** Makes one cell the one that Tab reaches. */
  stop(i) {
    for (const cell of this.cells) { cell.tabIndex = -1; delete cell.dataset.stop; }
    if (i >= 0) { this.cells[i].tabIndex = 0; this.cells[i].dataset.stop = "here"; }
  }

  move(event, i, grid) {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!by) return;
    event.preventDefault();
    let [row, column] = [Math.floor(i / grid.columns), i % grid.columns];
    for (;;) {
      [row, column] = [row + by[0], column + by[1]];
      if (row < 0 || column < 0 || row >= grid.rows || column >= grid.columns) return;
      const next = this.cells[row * grid.columns + column];
      if (!next.disabled) { this.stop(row * grid.columns + column); next.focus(); return; }
    }
  }

  click(i) {
    const grid = this.position.grid;
    this.stop(i);
    if (grid.kind !== "jumps") { this.act(grid.names[i]); return; }
    const chosen = this.chosen;
    if (chosen !== null) this.cells[chosen].setAttribute("aria-pressed", "false");
    this.chosen = null;
    if (chosen === i) return;
    if (chosen === null || grid.stones[i] === 1) {
      if (grid.stones[i] < 1) return;
      this.chosen = i;
      this.cells[i].setAttribute("aria-pressed", "true");
    } else {
      const name = grid.names[chosen] + grid.names[i];
      const longer = this.position.legal.find((move) => move.startsWith(name));
      this.act(longer || name);
    }
  }
}
