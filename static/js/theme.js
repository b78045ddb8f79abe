// Sets the chosen theme before the first paint; without a choice the system's preference counts.
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen === "paper" || chosen === "night") document.documentElement.dataset.theme = chosen;
})();
