// What the reader can change: the noise level, the row that is shown, the quantity in the map.
"use strict";

const page = JSON.parse(document.getElementById("numbers").textContent);
const state = { level: page.start, row: page.chosen, quantity: Object.keys(page.maps)[0], theme: "light" };
const CONFIG = { displaylogo: false, displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false };
const FIGURES = [["maps", mapFigure], ["slice", sliceFigure], ["dimension", dimensionFigure],
  ["looks", looksFigure], ...page.local.map((_, i) => [`local-${i}`, localFigure(i)])].filter(([name]) => document.getElementById(name));
const PRINTED = 1040; // px: figures on paper, which the style sheet scales down

const element = (id) => document.getElementById(id);

function draw(names = FIGURES.map(([name]) => name), paper = false) {
  state.theme = paper ? "light" : shell.theme();
  for (const [name, figure] of FIGURES) {
    if (!names.includes(name)) continue;
    const { traces, layout } = figure(page, state, (!paper && element(name).clientWidth) || PRINTED);
    Plotly.react(element(name), traces, layout, CONFIG);
  }
}

// A figure as a file: on white, as wide as on paper.
function picture(figure, format) {
  const { traces, layout } = figure(page, { ...state, theme: "light" }, PRINTED);
  return Plotly.toImage({ data: traces, layout }, { format, width: layout.width, height: layout.height, scale: format === "png" ? 2 : 1 });
}

function walk(level) {
  state.level = level;
  element("level").value = level;
  const text = sigmaText(page, level);
  element("level-text").textContent = text;
  element("level").setAttribute("aria-valuetext", text);
  for (const [name] of FIGURES) {
    if (!["slice", "looks"].includes(name)) Plotly.relayout(element(name), { shapes: levelMarks(page, state, element(name).layout.shapes) });
  }
  draw(["slice", "looks"]);
}

function choose(row) {
  state.row = row;
  document.querySelectorAll("[data-row]").forEach((e) => { e.hidden = Number(e.dataset.row) !== row; });
  draw();
}

function show(quantity) {
  state.quantity = quantity;
  document.querySelectorAll("[data-quantity]").forEach((e) => { e.hidden = e.dataset.quantity !== quantity; });
  draw(["maps", "slice"]);
}

function start() {
  element("level").max = page.levels.length - 1;
  element("level").addEventListener("input", (event) => walk(Number(event.target.value)));
  document.querySelectorAll("input[name=row]").forEach((e) => e.addEventListener("change", () => choose(Number(e.value))));
  document.querySelectorAll("input[name=quantity]").forEach((e) => e.addEventListener("change", () => show(e.value)));
  for (const [name, figure] of FIGURES) shell.savers[name] = (format) => picture(figure, format);
  draw();
  walk(state.level);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; draw(); }
  });
  document.addEventListener("theme", () => draw());
  window.addEventListener("beforeprint", () => draw(undefined, true));
  window.addEventListener("afterprint", () => draw());
}

start();
