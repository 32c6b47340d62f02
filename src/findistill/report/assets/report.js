// Glue between the report's plain tables and DataTables, and its figures and ECharts. Without scripts the page is as complete:
// plain tables and figures.
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const followColours = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", followColours);
followColours();

document.querySelectorAll("table.data").forEach((table) => {
  const long = table.tBodies[0].rows.length > 5;
  const name = table.getAttribute("aria-label");
  new DataTable(table, {
    autoWidth: false,
    order: [],
    pageLength: 25,
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    paging: table.tBodies[0].rows.length > 25,
    ordering: { indicators: false, handler: false },
    columnControl: ["order", ["search", "spacer", "colVis"]],
    language: { search: "Search", columnControl: { dropdown: "Filter this column, show or hide columns" } },
    layout: { topStart: long ? "search" : null, topEnd: long ? "pageLength" : null, bottomStart: long ? "info" : null },
  });
  const scrolled = table.closest(".dt-layout-table");
  scrolled.tabIndex = 0;
  scrolled.setAttribute("role", "region");
  scrolled.setAttribute("aria-label", name);
  const plain = table.closest(".wide");
  for (const attribute of ["tabindex", "role", "aria-label", "class"]) plain.removeAttribute(attribute);
});

document.querySelectorAll(".copy").forEach((button) => { button.hidden = false; });
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    document.getElementById("copied").textContent = "Command copied.";
  } catch {
    button.parentElement.querySelector("details").open = true;
    window.getSelection().selectAllChildren(code);
    document.getElementById("copied").textContent = "The command is selected: copy it.";
  }
});

// A figure's interactive version replaces its image, with the same proportions. The tooltip is drawn as text, never as HTML.
const numberText = (value) => Number(value.toPrecision(4)).toLocaleString("en");
const tickText = (axis) => (value) => axis.texts[axis.axisLabel.customValues.findIndex((at) => Math.abs(at - value) <= 1e-9 * Math.abs(at))] ?? "";
const drawChart = (image, options) => {
  const box = document.createElement("div");
  box.className = "chart";
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", image.alt);
  box.style.aspectRatio = image.offsetWidth / image.offsetHeight;
  image.after(box);
  const axes = [...options.xAxis, ...options.yAxis];
  for (const axis of axes) axis.axisLabel.formatter = tickText(axis);
  const tooltip = {
    renderMode: "richText",
    confine: true,
    formatter: ({ seriesName, seriesIndex, data }) => {
      const { xAxisIndex, yAxisIndex } = options.series[seriesIndex];
      const [x, y] = data.value.map(numberText);
      const text = data.text ?? `${options.xAxis[xAxisIndex].quantity} ${x}: ${options.yAxis[yAxisIndex].quantity} ${y}`;
      const lines = text.replace(/(.{1,70})(\s+|$)/g, "$1\n").trim();
      return seriesName ? `${seriesName}\n${lines}` : lines;
    },
  };
  const toolbox = { feature: { dataZoom: { filterMode: "none", title: { zoom: "Enlarge a region", back: "Back" } }, restore: { title: "Reset" } }, right: 0, top: -18, itemSize: 12 };
  const chart = echarts.init(box, null, { renderer: "svg" });
  chart.setOption({ ...options, tooltip, toolbox });
  new ResizeObserver(() => chart.resize()).observe(box);
  return box;
};
document.querySelectorAll(".explore").forEach((button) => {
  const figure = button.closest("figure");
  const image = figure.querySelector("img");
  let box = null;
  button.hidden = false;
  button.addEventListener("click", () => {
    box ??= drawChart(image, JSON.parse(figure.querySelector("script").textContent));
    const interactive = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", interactive);
    image.hidden = interactive;
    box.hidden = !interactive;
  });
});
