// Figures of the page: numbers -> Plotly traces and layouts. Pure functions of (page, state, width).
"use strict";

const FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const THEMES = {
  light: { ink: "#1f2328", muted: "#57606a", grid: "#e6e8eb", zero: "#8c959f", paper: "#ffffff" },
  dark: { ink: "#e6edf3", muted: "#9aa4ae", grid: "#2b323b", zero: "#6e7681", paper: "#14181d" },
};
const WIDE = 720; // px: from here on figures stand side by side
const LEFT = 54, RIGHT = 12;
const SIGMA = "noise level σ (rms)";
const HOVER = { hovertemplate: "%{text}<extra></extra>", showlegend: false };

// A label that is as long as a file's path is cut where it stands above a map.
const short = (label) => (label.length > 28 ? `${label.slice(0, 27)}…` : label);

const log10 = (values) => values.map(Math.log10);

// As the tables write it: two digits of the error, and as many of the value.
function pm(value, error) {
  if (value === null) return "not known";
  if (error === null) return `${Number(value.toPrecision(3))} ± nan`;
  if (error === 0) return `${Number(value.toPrecision(4))} ± 0`;
  const digits = Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(error))));
  return `${value.toFixed(digits)} ± ${error.toFixed(digits)}`;
}

function sigmaText(page, level) {
  return `σ = ${Number(page.levels[level].toPrecision(2))} rms`;
}

function columnText(page, u) {
  const { labels, counts, variances } = page.columns;
  const name = counts[u] === 1 ? `direction ${labels[u]}` : `directions ${labels[u]} (mean of ${counts[u]})`;
  return `${name}, variance ${variances[u]} rms²`;
}

// ------------------------------------------------------------------------------------- axes

// Whether labels of so many characters at these pixels stand free of each other.
const free = (ticks) => ticks.every((t, i) => !i || t.at - ticks[i - 1].at >= 3.7 * (t.text.length + ticks[i - 1].text.length) + 8);

// Ticks of the noise level, on an axis that is linear in log10 and so many pixels long.
function levelTicks(page, room, upright = false) {
  const [low, high] = levelRange(page), scale = room / (high - low);
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let e = -6; e < 7; e++) {
      for (const m of steps) {
        const value = Number(`${m}e${e}`), y = Math.log10(value);
        if (y >= low && y <= high) ticks.push({ value: y, at: scale * y, text: String(value) });
      }
    }
    const fits = upright ? ticks.every((t, i) => !i || t.at - ticks[i - 1].at >= 15) : free(ticks);
    if (fits || steps.length === 1) return { tickvals: ticks.map((t) => t.value), ticktext: ticks.map((t) => t.text) };
  }
}

function levelRange(page) {
  const y = log10(page.levels), last = y.length - 1;
  if (!last) return [y[0] - 0.5, y[0] + 0.5];
  return [y[0] - (y[1] - y[0]) / 2, y[last] + (y[last] - y[last - 1]) / 2];
}

// The first direction, then every fourth, say, and the last one, as far as their labels are free.
function columnTicks(page, room) {
  const { labels } = page.columns, n = labels.length;
  const tick = (u) => ({ at: (u + 0.5) * room / n, text: labels[u], value: u + 1 });
  for (const step of [1, 2, 4, 5, 8, 10, 16, 20, 32, 64, n]) {
    const ticks = [tick(0)];
    for (let u = step - 1; u < n - 1; u += step) if (u > step / 2) ticks.push(tick(u));
    const last = tick(n - 1);
    while (ticks.length > 1 && n > 1 && !free([ticks[ticks.length - 1], last])) ticks.pop();
    if (n > 1) ticks.push(last);
    if (free(ticks) || step === n) return { tickvals: ticks.map((t) => t.value), ticktext: ticks.map((t) => t.text) };
  }
}

const axis = (state, more) => ({
  fixedrange: true, showgrid: false, zeroline: false, ticks: "outside", ticklen: 4, automargin: false,
  tickcolor: THEMES[state.theme].zero, linecolor: THEMES[state.theme].zero, gridcolor: THEMES[state.theme].grid,
  zerolinecolor: THEMES[state.theme].zero, ...more,
});

const base = (state, width, height, more) => ({
  width, height, font: { family: FAMILY, size: 13, color: THEMES[state.theme].ink }, hovermode: "closest",
  margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: THEMES[state.theme].paper, plot_bgcolor: THEMES[state.theme].paper,
  hoverlabel: { bgcolor: THEMES[state.theme].paper, bordercolor: THEMES[state.theme].zero, font: { family: FAMILY, size: 13, color: THEMES[state.theme].ink } },
  dragmode: false, showlegend: false, annotations: [], ...more,
});

// Where a box of pixels lies in Plotly's domain, which counts from the lower left corner.
function domains(box, width, height) {
  return {
    x: [box.left / width, (box.left + box.width) / width],
    y: [1 - (box.top + box.height) / height, 1 - box.top / height],
  };
}

const heading = (text, box) => ({ text, showarrow: false, xref: "paper", yref: "paper", x: box.x[0], xanchor: "left", y: box.y[1], yanchor: "bottom", yshift: 3, align: "left" });

// The range of values with their errors. What lies far outside of the bulk does not stretch it.
function extent(values, errors) {
  const pairs = values.map((v, k) => [v, errors[k] || 0]).filter(([v]) => v !== null);
  const sizes = pairs.map(([v]) => Math.abs(v)).sort((a, b) => a - b);
  const bulk = 4 * (sizes[Math.floor(0.9 * (sizes.length - 1))] || 0) || Infinity;
  const within = (x) => Math.max(-bulk, Math.min(bulk, x));
  const low = Math.min(0, ...pairs.map(([v, e]) => within(v - e))), high = Math.max(0, ...pairs.map(([v, e]) => within(v + e)));
  const room = 0.06 * (high - low || 1);
  return [low < 0 ? low - room : 0, high + room];
}

// The noise level that the slider has chosen, in every panel of a figure.
function levelMarks(page, state, marks) {
  const at = Math.log10(page.levels[state.level]);
  return marks.map((m) => (m.xref.endsWith("domain") ? { ...m, y0: at, y1: at } : { ...m, x0: at, x1: at }));
}

// The first axis of a figure has no number: "y1 domain" is not understood.
const axisName = (letter, i) => (i ? `${letter}${i + 1}` : letter);

function mark(page, state, i, upright, color = THEMES[state.theme].ink) {
  const x = axisName("x", i), y = axisName("y", i), line = { color, width: 1.4, dash: "dot" };
  const whole = upright ? { xref: x, yref: `${y} domain`, y0: 0, y1: 1 } : { xref: `${x} domain`, yref: y, x0: 0, x1: 1 };
  return levelMarks(page, state, [{ type: "line", line, ...whole }])[0];
}

// A curve of estimates: a band of one standard error, and the line that is hovered.
function curve(x, value, stderr, colour, more, upright = true) {
  const runs = [[]]; // of levels that are known, one after the other: a band has gaps between
  value.forEach((v, k) => (v === null ? runs.push([]) : runs[runs.length - 1].push(k)));
  const around = (pick) => runs.flatMap((run) => [...run.map((k) => pick(k, 1)), ...[...run].reverse().map((k) => pick(k, -1)), null]);
  const ring = around((k) => x[k]), sides = around((k, sign) => value[k] + sign * (stderr[k] || 0));
  const place = (a, b) => (upright ? { x: a, y: b } : { x: b, y: a });
  const { line, axes, ...rest } = more;
  return [
    { type: "scatter", ...place(ring, sides), mode: "lines", line: { width: 0 }, fill: "toself",
      fillcolor: colour, opacity: 0.22, hoverinfo: "skip", showlegend: false, ...axes },
    { type: "scatter", ...place(x, value), mode: "lines", line: { color: colour, width: 2, ...line }, ...HOVER, ...axes, ...rest },
  ];
}

const lineOf = (state, row) => ({ width: row === state.row ? 3.2 : 1.8 });

// ---------------------------------------------------------------- (a) maps with their margins

// Boxes for maps in rows, and a last one for the margin by level.
function mapBoxes(titles, width) {
  const count = titles.length, wide = width >= WIDE, gap = wide ? 22 : 0;
  const need = Math.max(170, ...titles.map((t) => 6.8 * t.length + 8)); // titles stand side by side
  const fit = Math.floor((width - LEFT - RIGHT + gap) / (need + gap));
  const columns = wide ? Math.max(1, Math.min(count + 1, fit, count === 4 ? 5 : 4)) : 1;
  const each = Math.min((width - LEFT - RIGHT - gap * (columns - 1)) / columns, 520);
  const map = wide ? Math.max(200, Math.min(320, each * 1.25)) : 230;
  const strip = wide ? 72 : 60, row = 26 + map + 8 + strip + 50, top = 58;
  const boxes = [];
  for (let i = 0; i <= count; i++) {
    const x = LEFT + (i % columns) * (each + gap), y = top + 26 + Math.floor(i / columns) * row;
    boxes.push({
      map: { left: x, top: y, width: each, height: map },
      strip: { left: x, top: y + map + 8, width: each, height: strip },
      first: i % columns === 0,
    });
  }
  const rows = Math.ceil((count + 1) / columns);
  return { boxes, height: top + rows * row - (wide ? 0 : strip - 30) };
}

function mapFigure(page, state, width) {
  const map = page.maps[state.quantity], { rows } = page, theme = THEMES[state.theme];
  const titles = rows.map((label, i) => `${short(label)}: ${map.total_text[i]}`);
  const { boxes, height } = mapBoxes(titles, width), x = page.columns.labels.map((_, u) => u + 1), y = log10(page.levels);
  const layout = base(state, width, height, {
    bargap: 0.15,
    shapes: [...rows, null].map((label, i) => mark(page, state, i, false, label === null ? theme.ink : THEMES.light.ink)), // maps are white
    coloraxis: {
      colorscale: page.scale, cmin: -map.limit, cmid: 0, cmax: map.limit,
      colorbar: {
        orientation: "h", x: LEFT / width, xanchor: "left", xref: "paper", y: 1 - 58 / height, yanchor: "bottom",
        yref: "paper", len: Math.min(300, width - 90), lenmode: "pixels", thickness: 10, ypad: 0, xpad: 0,
        ticks: "outside", ticklen: 3, nticks: 5, outlinewidth: 0, tickcolor: theme.zero,
      },
    },
  });
  const more = map.beyond && width >= WIDE ? `; ${map.beyond} cells lie beyond the colours` : "";
  layout.annotations.push(heading(`${map.name}${width >= WIDE ? " in each direction" : ""} (${map.cell_units})${more}`, { x: [LEFT / width], y: [0, 1 - 20 / height] }));
  const strips = extent(map.by_direction.flat(), map.by_direction_stderr.flat());
  const levels = (box, first) => axis(state, { range: levelRange(page), ...levelTicks(page, box.height, true), showticklabels: first, title: first ? { text: SIGMA, standoff: 2 } : undefined });
  const traces = rows.flatMap((label, i) => {
    const a = i + 1, { map: box, strip, first } = boxes[i], zero = map.value[i][0].length;
    const upper = domains(box, width, height), lower = domains(strip, width, height);
    layout[`xaxis${a}`] = axis(state, { domain: upper.x, anchor: `y${i + 51}`, range: [0.5, zero + 0.5], ...columnTicks(page, box.width), tickangle: 0, title: { text: "principal direction", standoff: 4 } });
    layout[`yaxis${a}`] = { ...levels(box, first), domain: upper.y, anchor: `x${a}` };
    layout[`yaxis${i + 51}`] = axis(state, { domain: lower.y, anchor: `x${a}`, range: strips, nticks: 4, showgrid: true, zeroline: true, showticklabels: first, title: first ? { text: "nats", standoff: 2 } : undefined });
    const size = box.width < 260 ? 12 : 13;
    layout.annotations.push({ ...heading(`<b>${short(label)}</b>: ${map.total_text[i]}`, upper), font: { size, color: theme.ink } });
    const cells = map.value[i].map((line, k) => line.map((v, u) =>
      `${label}, ${columnText(page, u)}<br>${sigmaText(page, k)}<br><b>${pm(v, map.value_stderr[i][k][u])}</b> ${map.cell_units}`));
    const bars = map.by_direction[i].map((v, u) => `${label}, ${columnText(page, u)}<br><b>${pm(v, map.by_direction_stderr[i][u])}</b> nats`);
    return [
      { type: "heatmap", x, y, z: map.value[i], text: cells, ...HOVER, coloraxis: "coloraxis", xaxis: `x${a}`, yaxis: `y${a}`, name: label },
      { type: "bar", x, y: map.by_direction[i], text: bars, textposition: "none", ...HOVER, name: label,
        marker: { color: page.colours[state.theme][i], line: { width: 0 } },
        error_y: { array: map.by_direction_stderr[i], thickness: 1, width: 0, color: theme.muted }, xaxis: `x${a}`, yaxis: `y${i + 51}` },
    ];
  });
  const a = rows.length + 1, { map: place, first } = boxes[rows.length], box = domains(place, width, height);
  layout[`xaxis${a}`] = axis(state, { domain: box.x, anchor: `y${a}`, range: extent(map.by_level.flat(), map.by_level_stderr.flat()), showgrid: true, zeroline: true, nticks: 5, title: { text: map.units, standoff: 4 } });
  layout[`yaxis${a}`] = { ...levels(place, first), domain: box.y, anchor: `x${a}`, showgrid: true };
  layout.annotations.push(heading("all directions, by level", box));
  const axes = { xaxis: `x${a}`, yaxis: `y${a}` };
  const margins = rows.flatMap((label, i) => {
    const text = map.by_level[i].map((v, k) => `${label}, ${sigmaText(page, k)}<br><b>${pm(v, map.by_level_stderr[i][k])}</b> ${map.units}, all directions`);
    return curve(y, map.by_level[i], map.by_level_stderr[i], page.colours[state.theme][i], { axes, text, name: label, line: lineOf(state, i) }, false);
  });
  return { traces: [...traces, ...margins], layout };
}

// The map at one noise level: a line for each row, with its error.
function sliceFigure(page, state, width) {
  const map = page.maps[state.quantity], height = width >= WIDE ? 300 : 260, k = state.level;
  const x = page.columns.labels.map((_, u) => u + 1), at = (array) => array.flatMap((row) => row[k]);
  const traces = page.rows.flatMap((label, i) => {
    const value = map.value[i][k], error = map.value_stderr[i][k];
    const text = value.map((v, u) => `${label}, ${columnText(page, u)}<br>${sigmaText(page, k)}<br><b>${pm(v, error[u])}</b> ${map.cell_units}`);
    return curve(x, value, error, page.colours[state.theme][i], { axes: {}, text, name: label, line: lineOf(state, i) });
  });
  const layout = base(state, width, height, {
    margin: { l: LEFT, r: RIGHT, t: 30, b: 44 },
    xaxis: axis(state, { range: [0.5, x.length + 0.5], ...columnTicks(page, width - LEFT - RIGHT), tickangle: 0, title: { text: "principal direction, by falling variance", standoff: 6 } }),
    yaxis: axis(state, { range: extent(at(map.value), at(map.value_stderr)), showgrid: true, zeroline: true, title: { text: map.cell_units, standoff: 4 } }),
    annotations: [heading(`<b>${sigmaText(page, k)}</b>: ${map.name}${width >= WIDE ? " by direction" : ""}`, { x: [0], y: [0, 1] })],
  });
  return { traces, layout };
}

// ---------------------------------------------------------------- (b) curves against the level

const dimensionFigure = (page, state, width) => panelFigure(page, state, width, page.panels, "directions kept, tr ∂D/∂x", " directions kept");

// The dimension that a method finds at single points: a line where enough of them have one.
const localFigure = (index) => (page, state, width) => panelFigure(page, state, width, page.local[index].panels, "local dimension", "", page.local[index].enough);

function panelFigure(page, state, width, panels, name, units, enough = null) {
  const columns = width >= WIDE ? Math.min(panels.length, width < 960 ? 2 : 3) : 1, gap = 24;
  const each = Math.min((width - LEFT - RIGHT - gap * (columns - 1)) / columns, 640);
  const tall = width >= WIDE ? 280 : 210, row = 26 + tall + 50, height = 6 + row * Math.ceil(panels.length / columns);
  const x = log10(page.levels), curves = panels.flatMap((p) => [...p.curves, ...(p.control ? [p.control] : [])]);
  const range = extent(curves.flatMap((c) => c.value), []);
  const layout = base(state, width, height, { shapes: panels.map((_, i) => mark(page, state, i, true)) });
  const traces = panels.flatMap((panel, i) => {
    const a = i + 1, axes = { xaxis: `x${a}`, yaxis: `y${a}` }, first = i % columns === 0;
    const box = domains({ left: LEFT + (i % columns) * (each + gap), top: 32 + Math.floor(i / columns) * row, width: each, height: tall }, width, height);
    layout[`xaxis${a}`] = axis(state, { domain: box.x, anchor: `y${a}`, range: levelRange(page), ...levelTicks(page, each), title: { text: SIGMA, standoff: 4 } });
    layout[`yaxis${a}`] = axis(state, { domain: box.y, anchor: `x${a}`, range, showgrid: true, showticklabels: first, title: first ? { text: name, standoff: 4 } : undefined });
    layout.annotations.push(heading(`<b>${panel.title}</b>`, box));
    const said = (c) => c.value.map((v, k) => `${c.label}, ${sigmaText(page, k)}<br><b>${pm(v, c.stderr[k])}</b>${units}` +
      (c.answered && c.answered[k] !== null ? `<br>at ${Math.round(100 * c.answered[k])} % of the points` : ""));
    const control = panel.control ? curve(x, panel.control.value, panel.control.stderr, THEMES[state.theme].muted, { axes, text: said(panel.control), line: { dash: "dash", width: 1.5 } }) : [];
    const lines = panel.curves.flatMap((c) => {
      const color = c.colours[state.theme], text = said(c), line = lineOf(state, c.row);
      if (!c.answered) return curve(x, c.value, c.stderr, color, { axes, text, line });
      const only = (few) => c.value.map((v, k) => ((c.answered[k] < enough) === few ? v : null));
      const rings = { type: "scatter", x, y: only(true), mode: "markers", marker: { color, symbol: "circle-open", size: 7 }, text, ...HOVER, ...axes };
      return [...curve(x, only(false), c.stderr, color, { axes, text, line, mode: "lines+markers", marker: { color, size: 5 } }), rings];
    });
    return [...control, ...lines];
  });
  return { traces, layout };
}

// ------------------------------------------------------------------- (c) looks at a training

// Nats, lost directions at the slider's level, and errors, against the steps of a training.
function looksFigure(page, state, width) {
  const { steps, gains, lost, errors, p_values: chances, first } = page.looks, theme = THEMES[state.theme], k = state.level;
  const colour = (share) => page.colours[state.theme][Math.round(share * (page.rows.length - 1))];
  const at = { value: lost.value.map((row) => row[k]), stderr: lost.stderr.map((row) => row[k]) };
  const panels = [
    { title: "gained at training images alone", units: "nats", curves: [
      { label: "linear control", color: colour(1), ...gains.linear },
      { label: "best earlier look", color: colour(0), dash: "dash", ...gains.earlier }] },
    { title: `lost in all directions, ${sigmaText(page, k)}`, units: "directions", curves: [{ label: "linear control", color: colour(1), ...at }] },
    { title: "error over the window", units: "nats", curves: [
      { label: "training images", color: colour(1), ...errors.training },
      { label: "held-out images", color: theme.muted, dash: "dash", ...errors.held_out }] },
  ];
  // Side by side only where each panel holds its heading.
  const gap = 56, third = (width - LEFT - RIGHT - 2 * gap) / 3, columns = third >= 250 ? 3 : 1, tall = columns === 3 ? 260 : 200, row = 48 + tall + 48;
  const each = columns === 3 ? third : width - LEFT - RIGHT, height = row * (panels.length / columns);
  const x = log10(steps), ends = [x[0] - 0.1, x[x.length - 1] + 0.1], layout = base(state, width, height, { shapes: [] });
  const ticks = steps.map((s, i) => ({ value: x[i], at: each * (x[i] - ends[0]) / (ends[1] - ends[0]), text: String(s) }));
  const free_ = ticks.filter((t, i) => i === ticks.length - 1 || (ticks.length - 1 - i) % Math.ceil(ticks.length / Math.max(2, Math.floor(each / 60))) === 0);
  const traces = panels.flatMap((panel, i) => {
    const a = i + 1, axes = { xaxis: `x${a}`, yaxis: `y${a}` };
    const box = domains({ left: LEFT + (i % columns) * (each + gap), top: 48 + Math.floor(i / columns) * row, width: each, height: tall }, width, height);
    const all = panel.curves.flatMap((c) => c.value), around = panel.curves.flatMap((c) => c.stderr);
    layout[`xaxis${a}`] = axis(state, { domain: box.x, anchor: `y${a}`, range: ends, tickvals: free_.map((t) => t.value), ticktext: free_.map((t) => t.text), title: { text: "step of the training", standoff: 4 } });
    layout[`yaxis${a}`] = axis(state, { domain: box.y, anchor: `x${a}`, range: extent(all, around), showgrid: true, zeroline: true, title: { text: panel.units, standoff: 4 } });
    layout.annotations.push({ ...heading(`<b>${panel.title}</b>`, box), yshift: 20 });
    layout.annotations.push({ ...heading(panel.curves.map((c) => `<span style="color:${c.color}">${c.dash ? "- - " : "— "}</span>${c.label}`).join("   "), box), font: { size: 12, color: theme.muted } });
    if (first !== null) layout.shapes.push({ type: "line", xref: axisName("x", i), yref: `${axisName("y", i)} domain`, x0: Math.log10(first), x1: Math.log10(first), y0: 0, y1: 1, line: { color: theme.ink, width: 1.4, dash: "dot" } });
    return panel.curves.flatMap((c) => {
      const text = c.value.map((v, j) => `step ${steps[j]}, ${c.label}<br><b>${pm(v, c.stderr[j])}</b> ${panel.units}<br>p = ${chances[j]} at this look`);
      return curve(x, c.value, c.stderr, c.color, { axes, text, line: { dash: c.dash }, mode: "lines+markers", marker: { color: c.color, size: 5 } });
    });
  });
  return { traces, layout };
}
