// Draws the bars of cost and requests. The numbers stand in the page as data and, for everybody, as a table.
(() => {
  "use strict";

  const drawn = [];
  const colour = (name, alpha = 1) => {
    const value = getComputedStyle(document.documentElement).getPropertyValue(`--color-${name}`).trim();
    return alpha === 1 ? value : `color-mix(in oklab, ${value} ${alpha * 100}%, transparent)`;
  };

  // Canvas does not know color-mix or every oklch browser: the browser itself resolves a colour into one it paints.
  const painter = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (name, alpha) => {
    painter.fillStyle = "#888";
    painter.fillStyle = colour(name);
    painter.globalAlpha = 1;
    painter.clearRect(0, 0, 1, 1);
    painter.fillRect(0, 0, 1, 1);
    const [red, green, blue] = painter.getImageData(0, 0, 1, 1).data;
    return `rgba(${red}, ${green}, ${blue}, ${alpha ?? 1})`;
  };

  const money = (value) => {
    if (value === 0) return "$0";
    return value >= 1 ? `$${value.toLocaleString("en-US", { maximumFractionDigits: 2 })}` : `$${Number(value.toPrecision(2))}`;
  };

  function datasetsOf(kind, figures) {
    if (kind === "cost") return [{ label: "Cost", data: figures.cost, backgroundColor: paint("primary", 0.85) }];
    const succeeded = figures.requests.map((all, index) => all - figures.failed[index]);
    return [
      { label: "Succeeded", data: succeeded, backgroundColor: paint("secondary", 0.8), stack: "requests" },
      { label: "Failed", data: figures.failed, backgroundColor: paint("error", 0.85), stack: "requests" },
    ];
  }

  function labelOf(kind, figures, item) {
    if (kind === "cost") return ` ${figures.cost_text[item.dataIndex]}`;
    return ` ${item.dataset.label}: ${item.parsed.y.toLocaleString("en-US")}`;
  }

  function draw(canvas) {
    const figures = JSON.parse(document.getElementById(canvas.dataset.figures).dataset.figures);
    const kind = canvas.dataset.chart;
    const ink = paint("base-content", 0.62);
    return new Chart(canvas, {
      type: "bar",
      data: {
        labels: figures.labels,
        datasets: datasetsOf(kind, figures).map((dataset) => ({ ...dataset, borderRadius: 3, maxBarThickness: 26 })),
      },
      options: {
        responsive: true,
        maintainAspectRatio: false,
        animation: false,
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { stacked: true, grid: { display: false }, border: { display: false }, ticks: { color: ink, maxRotation: 0, autoSkipPadding: 24, font: { size: 11 } } },
          y: {
            stacked: true,
            beginAtZero: true,
            border: { display: false },
            grid: { color: paint("base-content", 0.08) },
            ticks: { color: ink, maxTicksLimit: 5, precision: kind === "cost" ? undefined : 0, font: { size: 11 }, callback: kind === "cost" ? money : (value) => value.toLocaleString("en-US") },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: { displayColors: kind !== "cost", padding: 10, callbacks: { label: (item) => labelOf(kind, figures, item) } },
        },
      },
    });
  }

  function drawAll() {
    while (drawn.length) drawn.pop().destroy();
    for (const canvas of document.querySelectorAll("canvas[data-chart]")) drawn.push(draw(canvas));
  }

  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("themechange", drawAll);
  document.addEventListener("htmx:afterSettle", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
