"use strict";
// Sorts a table by the column whose head is pressed; numbers stand in data-value, and what has none comes last.
for (const head of document.querySelectorAll("th[aria-sort]")) {
  head.firstElementChild.addEventListener("click", () => {
    const table = head.closest("table"), column = head.cellIndex;
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.cells[column], value = cell.dataset.value;
      return value === undefined ? cell.textContent.trim().toLowerCase() : value === "" ? NaN : Number(value);
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (typeof a === "string" || typeof b === "string") return sign * String(a).localeCompare(String(b));
      return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}

// Shows the values of a chart below the pointer or, with the arrow keys, at a place along its axis.
const number = (value) => (value === 0 ? "0" : Number(value.toPrecision(3)).toString());
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), cursor = svg.querySelector(".cursor"), scale = JSON.parse(svg.dataset.scale);
  const points = (path) => path ? [...path.getAttribute("d").matchAll(/(-?[\d.]+),(-?[\d.]+)/g)].map((m) => [+m[1], +m[2]]) : [];
  const across = (x) => scale.x0 + ((x - scale.left) / (scale.right - scale.left)) * (scale.x1 - scale.x0);
  const value = (y) => {
    const linear = scale.y0 + ((scale.bottom - y) / (scale.bottom - scale.top)) * (scale.y1 - scale.y0);
    return scale.log ? 10 ** linear : linear;
  };
  let series = null, places = [], at = -1, tip = null;
  const prepare = () => {
    if (series) return;
    series = [...svg.querySelectorAll(".series")].map((group) => ({
      name: group.dataset.name, color: getComputedStyle(group).color,
      line: new Map(points(group.querySelector(".line"))),
      band: Map.groupBy ? Map.groupBy(points(group.querySelector(".band")), ([x]) => x) : new Map(),
    }));
    places = [...new Set(series.flatMap((one) => [...one.line.keys()]))].sort((a, b) => a - b);
  };
  const hide = () => { tip?.remove(); tip = null; cursor.style.visibility = "hidden"; };
  const show = (x) => {
    hide();
    tip = document.createElement("div");
    tip.className = "tip";
    const head = document.createElement("div");
    head.textContent = `${scale.name} ${number(across(x))}`;
    tip.append(head);
    const found = series.filter((one) => one.line.has(x)).sort((a, b) => a.line.get(x) - b.line.get(x));
    for (const one of found.slice(0, 20)) {
      const row = document.createElement("div"), dot = document.createElement("span"), ends = one.band.get(x) ?? [];
      const low = Math.max(...ends.map(([, y]) => y)), high = Math.min(...ends.map(([, y]) => y));
      dot.textContent = "\u25CF ";
      dot.style.color = one.color;
      const range = ends.length ? ` (${number(value(low))} to ${number(value(high))})` : "";
      row.append(dot, `${number(value(one.line.get(x)))}${range} ${one.name}`);
      tip.append(row);
    }
    chart.append(tip);
    const box = svg.getBoundingClientRect(), outer = chart.getBoundingClientRect();
    const place = (x / svg.viewBox.baseVal.width) * box.width + box.left - outer.left;
    // On the side that has room, and never beyond the chart, which may be as wide as the window.
    const left = place + 16 + tip.offsetWidth <= outer.width ? place + 16 : place - 16 - tip.offsetWidth;
    tip.style.left = `${Math.max(left, 0)}px`;
    tip.style.top = `${box.top - outer.top + 8}px`;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
  };
  svg.addEventListener("pointermove", (event) => {
    prepare();
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    at = places.reduce((best, place, i) => (Math.abs(place - x) < Math.abs(places[best] - x) ? i : best), 0);
    if (places.length) show(places[at]);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!by) return;
    event.preventDefault();
    prepare();
    at = Math.min(Math.max(at + by, 0), places.length - 1);
    if (places.length) show(places[at]);
  });
}

// Lifts the series whose name is pressed in a legend out of all charts of its section.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    const section = button.closest("section"), all = [...section.querySelectorAll(".legend button")];
    const chosen = all.filter((one) => one.getAttribute("aria-pressed") === "true").map((one) => one.dataset.name);
    for (const group of section.querySelectorAll(".series")) {
      group.classList.toggle("faint", chosen.length > 0 && !chosen.includes(group.dataset.name));
    }
  });
}
