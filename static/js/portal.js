// Small conveniences of every page: theme switch, copy buttons, the dialog, menus that close. All pages work without.
(() => {
  "use strict";

  const isDark = () =>
    document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "night"
      : matchMedia("(prefers-color-scheme: dark)").matches;

  function switchTheme() {
    const theme = isDark() ? "paper" : "night";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
    document.dispatchEvent(new Event("themechange"));
  }

  // The clipboard API needs https or localhost; elsewhere the text is selected and copied the old way.
  async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr-only";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("copying was refused");
  }

  async function onCopy(button) {
    const source = document.getElementById(button.dataset.copy);
    const label = button.querySelector("[data-label]");
    const before = button.dataset.words ?? label.textContent;
    button.dataset.words = before;
    try {
      await copy(source.dataset.value ?? source.textContent);
      label.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      label.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { label.textContent = before; }, 2000);
  }

  document.addEventListener("click", (event) => {
    const copyButton = event.target.closest("[data-copy]");
    if (copyButton) onCopy(copyButton);
    if (event.target.closest("[data-theme-switch]")) switchTheme();
    if (event.target.closest("[data-close-dialog]")) {
      event.preventDefault();
      document.getElementById("dialog").close();
    }
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id === "dialog-body") document.getElementById("dialog").showModal();
    event.target.querySelector?.("[data-focus]")?.focus();
  });

  // A part that could not be had is shown as a whole page: the server says best what is wrong.
  document.addEventListener("htmx:sendError", () => {
    document.getElementById("offline")?.removeAttribute("hidden");
  });
})();
