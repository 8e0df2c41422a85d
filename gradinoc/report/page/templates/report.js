"use strict";
(() => {
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
