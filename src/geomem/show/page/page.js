// What the reader can change: the noise level, the training-set size, the quantity in the map.
"use strict";

const page = JSON.parse(document.getElementById("numbers").textContent);
const state = { level: page.start, size: 0, quantity: "density" };
const CONFIG = { displaylogo: false, displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false };
const FIGURES = [["maps", mapFigure], ["slice", sliceFigure], ["dimension", dimensionFigure],
  ...page.local.map((_, i) => [`local-${i}`, localFigure(i)])];
const PRINTED = 1040; // px: figures on paper, which the style sheet scales down

const element = (id) => document.getElementById(id);

function draw(names = FIGURES.map(([name]) => name), width = null) {
  for (const [name, figure] of FIGURES) {
    if (!names.includes(name)) continue;
    const { traces, layout } = figure(page, state, width || element(name).clientWidth);
    Plotly.react(element(name), traces, layout, CONFIG);
  }
}

function walk(level) {
  state.level = level;
  element("level").value = level;
  const text = sigmaText(page, level);
  element("level-text").textContent = text;
  element("level").setAttribute("aria-valuetext", text);
  Plotly.relayout(element("maps"), { shapes: mapMarks(page, state) });
  Plotly.relayout(element("dimension"), { shapes: panelMarks(page, state) });
  page.local.forEach((method, i) => Plotly.relayout(element(`local-${i}`), { shapes: panelMarks(page, state, method.panels) }));
  draw(["slice"]);
}

function choose(size) {
  state.size = size;
  document.querySelectorAll("[data-size]").forEach((e) => { e.hidden = Number(e.dataset.size) !== size; });
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
  document.querySelectorAll("input[name=size]").forEach((e) => e.addEventListener("change", () => choose(Number(e.value))));
  document.querySelectorAll("input[name=quantity]").forEach((e) => e.addEventListener("change", () => show(e.value)));
  draw();
  walk(state.level);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; draw(); }
  });
  window.addEventListener("beforeprint", () => draw(undefined, PRINTED));
  window.addEventListener("afterprint", () => draw());
}

start();
