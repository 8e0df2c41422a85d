"use strict";
(() => {
  const table = document.getElementById("run-table");
  const tools = document.getElementById("run-tools");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const said = document.getElementById("run-count");

  const value = (row, column) => row.cells[column].dataset.value;
  const compare = (one, other, numeric) =>
    numeric ? Number(one) - Number(other) : one.localeCompare(other, undefined, { numeric: true });

  const sort = (column) => {
    const head = heads[column];
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((each) => each.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const there = rows.filter((row) => value(row, column) !== "");
    const missing = rows.filter((row) => value(row, column) === "");
    there.sort((a, b) => compare(value(a, column), value(b, column), "numeric" in head.dataset) * (down ? -1 : 1));
    body.append(...there, ...missing);
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });

  const condition = document.getElementById("run-condition");
  const seed = document.getElementById("run-seed");
  const words = document.getElementById("run-words");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !(
        (condition.value === "" || value(row, 0) === condition.value) &&
        (seed.value === "" || value(row, 1) === seed.value) &&
        wanted.every((word) => text.includes(word))
      );
    });
    const left = rows.filter((row) => !row.hidden).length;
    said.textContent = `${left} of ${rows.length} runs shown.`;
  };
  [[condition, 0], [seed, 1]].forEach(([select, column]) => {
    new Set(rows.map((row) => value(row, column))).forEach((each) => {
      const text = rows.find((row) => value(row, column) === each).cells[column].textContent.trim();
      select.add(new Option(text, each));
    });
    select.addEventListener("input", filter);
  });
  words.addEventListener("input", filter);
  document.getElementById("run-all").addEventListener("click", () => {
    condition.value = seed.value = words.value = "";
    filter();
  });
  filter();
  tools.hidden = false;

  const command = document.getElementById("command");
  const copy = document.getElementById("copy");
  const copied = document.getElementById("copied");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(command);
    try {
      await navigator.clipboard.writeText(command.textContent);
      copied.textContent = "Copied.";
    } catch {
      copied.textContent = "Selected: press Ctrl+C, or ⌘C.";
    }
  });

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
})();
