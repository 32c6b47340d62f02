// Glue between the report's plain tables and DataTables; without scripts the page is as complete, as plain tables.
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
