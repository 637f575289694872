// Figures of the page: numbers -> Plotly traces and layouts. Pure functions of (page, state, width).
"use strict";

const FONT = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 13, color: "#1f2328" };
const GRID = "#e6e8eb", ZERO = "#8c959f", MARK = "#1f2328";
const WIDE = 720; // px: from here on figures stand side by side

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

// Ticks of the noise level, on an axis that is linear in log10.
function levelTicks(page) {
  const low = page.levels[0] * 0.999, high = page.levels[page.levels.length - 1] * 1.001;
  const ticks = [];
  for (let e = -4; e < 5; e++) for (const m of [1, 2, 5]) ticks.push(m * 10 ** e);
  const inside = ticks.filter((t) => t >= low && t <= high);
  const few = inside.length > 7 ? inside.filter((t) => /^[0.]*1/.test(String(Number(t.toPrecision(1))))) : inside;
  return { tickvals: log10(few), ticktext: few.map((t) => String(Number(t.toPrecision(1)))) };
}

function levelRange(page) {
  const y = log10(page.levels), last = y.length - 1;
  return [y[0] - (y[1] - y[0]) / 2, y[last] + (y[last] - y[last - 1]) / 2];
}

function columnTicks(page, room) {
  const { labels, counts } = page.columns, n = labels.length;
  const singles = counts.filter((c) => c === 1).length;
  const steps = [1, 2, 4, 5, 8, 10, 16, 20, 32].find((s) => singles / s * 26 <= room) || 32;
  const at = [0];
  for (let u = steps - 1; u < singles; u += steps) if (u > steps / 2) at.push(u);
  if (singles === n) return { tickvals: at.map((u) => u + 1), ticktext: at.map((u) => labels[u]) };
  const last = n - 1 - Math.ceil(n * 60 / room); // bands have long names
  at.splice(0, at.length, ...at.filter((u) => u <= last), n - 1);
  return { tickvals: at.map((u) => u + 1), ticktext: at.map((u) => labels[u]) };
}

const axis = (more) => ({
  fixedrange: true, showgrid: false, zeroline: false, ticks: "outside", ticklen: 4,
  tickcolor: ZERO, linecolor: ZERO, automargin: false, ...more,
});

// Where a box of pixels lies in Plotly's domain, which counts from the lower left corner.
function domains(box, width, height) {
  return {
    x: [box.left / width, (box.left + box.width) / width],
    y: [1 - (box.top + box.height) / height, 1 - box.top / height],
  };
}

// Boxes for maps in rows, and a last one for the margin by level.
function mapBoxes(count, width) {
  const wide = width >= WIDE, left = 54, gap = wide ? 22 : 0, right = 12;
  const columns = wide ? Math.min(count + 1, 5) : 1;
  const each = (width - left - right - gap * (columns - 1)) / columns;
  const map = wide ? Math.max(200, Math.min(320, each * 1.25)) : 230;
  const strip = wide ? 72 : 60, row = 26 + map + 8 + strip + 50, top = 58;
  const boxes = [];
  for (let i = 0; i <= count; i++) {
    const x = left + (i % columns) * (each + gap), y = top + 26 + Math.floor(i / columns) * row;
    boxes.push({
      map: { left: x, top: y, width: each, height: map },
      strip: { left: x, top: y + map + 8, width: each, height: strip },
      first: i % columns === 0,
    });
  }
  const rows = Math.ceil((count + 1) / columns);
  return { boxes, height: top + rows * row - (wide ? 0 : strip - 30), each };
}

function mapTrace(page, map, i) {
  const size = page.sizes[i];
  const text = map.value[i].map((row, k) => row.map((v, u) =>
    `N = ${size}, ${columnText(page, u)}<br>${sigmaText(page, k)}<br>` +
    `<b>${pm(v, map.value_stderr[i][k][u])}</b> ${map.cell_units}`));
  return {
    type: "heatmap", x: page.columns.labels.map((_, u) => u + 1), y: log10(page.levels),
    z: map.value[i], text, hovertemplate: "%{text}<extra></extra>", coloraxis: "coloraxis",
    xaxis: `x${i + 1}`, yaxis: `y${i + 1}`, name: `N = ${size}`,
  };
}

function stripTrace(page, map, i) {
  const text = map.by_direction[i].map((v, u) =>
    `N = ${page.sizes[i]}, ${columnText(page, u)}<br><b>${pm(v, map.by_direction_stderr[i][u])}</b> nats`);
  return {
    type: "bar", x: page.columns.labels.map((_, u) => u + 1), y: map.by_direction[i], text,
    textposition: "none", hovertemplate: "%{text}<extra></extra>", name: `N = ${page.sizes[i]}`,
    marker: { color: page.colours[i], line: { width: 0 } },
    error_y: { array: map.by_direction_stderr[i], thickness: 1, width: 0, color: "#57606a" },
    xaxis: `x${i + 1}`, yaxis: `y${i + 51}`,
  };
}

// A curve of estimates: a band of one standard error, and the line that is hovered.
function curve(x, value, stderr, colour, more, horizontal) {
  const runs = [[]]; // of levels that are known, one after the other: a band has gaps between
  value.forEach((v, k) => (v === null ? runs.push([]) : runs[runs.length - 1].push(k)));
  const around = (pick) => runs.flatMap((run) => [...run.map((k) => pick(k, 1)), ...[...run].reverse().map((k) => pick(k, -1)), null]);
  const ring = around((k) => x[k]), sides = around((k, sign) => value[k] + sign * (stderr[k] || 0));
  const place = (a, b) => (horizontal ? { x: b, y: a } : { x: a, y: b });
  const { line, axes, ...rest } = more;
  return [
    { type: "scatter", ...place(ring, sides), mode: "lines", line: { width: 0 }, fill: "toself",
      fillcolor: colour, opacity: 0.22, hoverinfo: "skip", showlegend: false, ...axes },
    { type: "scatter", ...place(x, value), mode: "lines", line: { color: colour, width: 2, ...line },
      showlegend: false, ...axes, ...rest },
  ];
}

function levelTraces(page, map, state) {
  const at = page.sizes.length + 1, axes = { xaxis: `x${at}`, yaxis: `y${at}` };
  return page.sizes.flatMap((size, i) => {
    const text = map.by_level[i].map((v, k) =>
      `N = ${size}, ${sigmaText(page, k)}<br><b>${pm(v, map.by_level_stderr[i][k])}</b> ${map.units}, all directions`);
    return curve(log10(page.levels), map.by_level[i], map.by_level_stderr[i], page.colours[i],
      { axes, text, hovertemplate: "%{text}<extra></extra>", name: `N = ${size}`,
        line: { width: i === state.size ? 3.2 : 1.8 } }, true);
  });
}

function extent(arrays, errors) {
  const values = arrays.flatMap((row, i) => row.flatMap((v, k) => (v === null ? [] : [v - (errors[i][k] || 0), v + (errors[i][k] || 0)])));
  const low = Math.min(0, ...values), high = Math.max(0, ...values), room = 0.06 * (high - low || 1);
  return [low - room, high + room];
}

// (a) The signature picture: maps with their margins.
function mapFigure(page, state, width) {
  const map = page.maps[state.quantity], count = page.sizes.length;
  const { boxes, height, each } = mapBoxes(count, width);
  const layout = {
    width, height, font: FONT, margin: { l: 0, r: 0, t: 0, b: 0 }, hovermode: "closest", bargap: 0.15,
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", dragmode: false, annotations: [], showlegend: false,
    coloraxis: {
      colorscale: page.scale, cmin: -map.limit, cmid: 0, cmax: map.limit,
      colorbar: {
        orientation: "h", x: 54 / width, xanchor: "left", xref: "paper", y: 1 - 58 / height, yanchor: "bottom",
        yref: "paper", len: Math.min(300, width - 90), lenmode: "pixels", thickness: 10, ypad: 0, xpad: 0,
        ticks: "outside", ticklen: 3, nticks: 5, outlinewidth: 0,
      },
    },
  };
  layout.annotations.push({ ...heading(`${map.name}${width >= WIDE ? " in each direction" : ""} (${map.cell_units})`, { x: [54 / width], y: [0, 1 - 20 / height] }) });
  const strips = extent(map.by_direction, map.by_direction_stderr);
  const columns = page.columns.labels.length;
  page.sizes.forEach((size, i) => {
    const a = i + 1, { map: box, strip, first } = boxes[i];
    const upper = domains(box, width, height), lower = domains(strip, width, height);
    layout[`xaxis${a}`] = axis({ domain: upper.x, anchor: `y${i + 51}`, range: [0.5, columns + 0.5], ...columnTicks(page, each), tickangle: 0, title: { text: "principal direction", standoff: 4 } });
    layout[`yaxis${a}`] = axis({ domain: upper.y, anchor: `x${a}`, range: levelRange(page), ...levelTicks(page), showticklabels: first, title: first ? { text: "noise level σ (rms)", standoff: 2 } : undefined });
    layout[`yaxis${i + 51}`] = axis({ domain: lower.y, anchor: `x${a}`, range: strips, nticks: 4, showgrid: true, gridcolor: GRID, zeroline: true, zerolinecolor: ZERO, showticklabels: first, title: first ? { text: "nats", standoff: 2 } : undefined });
    layout.annotations.push({ ...heading(`<b>N = ${size}</b>: ${map.total_text[i]} nats`, upper), font: { size: each < 190 ? 12 : 13, color: FONT.color } });
  });
  const a = count + 1, box = domains(boxes[count].map, width, height);
  layout[`xaxis${a}`] = axis({ domain: box.x, anchor: `y${a}`, range: extent(map.by_level, map.by_level_stderr), showgrid: true, gridcolor: GRID, zeroline: true, zerolinecolor: ZERO, nticks: 5, title: { text: map.units, standoff: 4 } });
  layout[`yaxis${a}`] = axis({ domain: box.y, anchor: `x${a}`, range: levelRange(page), ...levelTicks(page), showticklabels: boxes[count].first, showgrid: true, gridcolor: GRID, title: boxes[count].first ? { text: "noise level σ (rms)", standoff: 2 } : undefined });
  layout.annotations.push(heading("all directions, by level", box));
  layout.shapes = mapMarks(page, state);
  const traces = page.sizes.flatMap((_, i) => [mapTrace(page, map, i), stripTrace(page, map, i)]);
  return { traces: [...traces, ...levelTraces(page, map, state)], layout };
}

const heading = (text, box) => ({ text, showarrow: false, xref: "paper", yref: "paper", x: box.x[0], xanchor: "left", y: box.y[1], yanchor: "bottom", yshift: 3, align: "left" });

// The first axis of a figure has no number: "y1 domain" is not understood.
const axisName = (letter, i) => (i ? `${letter}${i + 1}` : letter);

// The noise level that the slider has chosen, in the maps ...
function mapMarks(page, state) {
  const y = Math.log10(page.levels[state.level]);
  return [...page.sizes, null].map((_, i) => ({
    type: "line", xref: `${axisName("x", i)} domain`, yref: axisName("y", i), x0: 0, x1: 1, y0: y, y1: y,
    line: { color: MARK, width: 1.4, dash: "dot" },
  }));
}

// ... and in the curves of dimension.
function panelMarks(page, state, panels = page.panels) {
  const x = Math.log10(page.levels[state.level]);
  return panels.map((_, i) => ({
    type: "line", xref: axisName("x", i), yref: `${axisName("y", i)} domain`, x0: x, x1: x, y0: 0, y1: 1,
    line: { color: MARK, width: 1.4, dash: "dot" },
  }));
}

// The map at one noise level: a line for each N, with its error.
function sliceFigure(page, state, width) {
  const map = page.maps[state.quantity], height = width >= WIDE ? 300 : 260, k = state.level;
  const x = page.columns.labels.map((_, u) => u + 1);
  const pick = (array) => page.sizes.map((_, i) => array[i][k]);
  const traces = page.sizes.flatMap((size, i) => {
    const value = map.value[i][k], error = map.value_stderr[i][k];
    const text = value.map((v, u) => `N = ${size}, ${columnText(page, u)}<br>${sigmaText(page, k)}<br><b>${pm(v, error[u])}</b> ${map.cell_units}`);
    return curve(x, value, error, page.colours[i], { axes: {}, text, hovertemplate: "%{text}<extra></extra>", name: `N = ${size}`, line: { width: i === state.size ? 3.2 : 1.8 } });
  });
  const layout = {
    width, height, font: FONT, margin: { l: 54, r: 12, t: 30, b: 44 }, hovermode: "closest", dragmode: false,
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", showlegend: false,
    xaxis: axis({ range: [0.5, x.length + 0.5], ...columnTicks(page, width - 66), tickangle: 0, title: { text: "principal direction, by falling variance", standoff: 6 } }),
    yaxis: axis({ range: extent(pick(map.value), pick(map.value_stderr)), showgrid: true, gridcolor: GRID, zeroline: true, zerolinecolor: ZERO, title: { text: map.cell_units, standoff: 4 } }),
    annotations: [heading(`<b>${sigmaText(page, k)}</b>: ${map.name}${width >= WIDE ? " by direction" : ""}`, { x: [0], y: [0, 1] })],
  };
  return { traces, layout };
}

// (b) Dimension kept against the noise level.
function dimensionFigure(page, state, width) {
  return panelFigure(page, state, width, page, "directions kept, tr ∂D/∂x");
}

// The dimension that a method finds at single images: a line where enough of them have one.
const localFigure = (index) => (page, state, width) => panelFigure(page, state, width, page.local[index], "local dimension");

function panelFigure(page, state, width, source, name) {
  const { answered, enough } = source, what = answered ? "" : " directions kept";
  const wide = width >= WIDE, count = source.panels.length, columns = wide ? count : 1;
  const left = 54, right = 12, gap = 24, each = (width - left - right - gap * (columns - 1)) / columns;
  const tall = wide ? 280 : 210, row = 26 + tall + 50, height = 6 + row * Math.ceil(count / columns);
  const x = log10(page.levels);
  const all = [...source.panels.flatMap((p) => p.value), source.control.training[0], source.control.held_out[0]];
  const known = all.flat().filter((v) => v !== null);
  const top = 1.06 * Math.max(1, ...known), low = 1.06 * Math.min(0, ...known);
  const layout = {
    width, height, font: FONT, margin: { l: 0, r: 0, t: 0, b: 0 }, hovermode: "closest", dragmode: false,
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", annotations: [], showlegend: false, shapes: panelMarks(page, state, source.panels),
  };
  const traces = source.panels.flatMap((panel, i) => {
    const a = i + 1, axes = { xaxis: `x${a}`, yaxis: `y${a}` }, first = i % columns === 0;
    const box = domains({ left: left + (i % columns) * (each + gap), top: 32 + Math.floor(i / columns) * row, width: each, height: tall }, width, height);
    layout[`xaxis${a}`] = axis({ domain: box.x, anchor: `y${a}`, range: levelRange(page), ...levelTicks(page), title: { text: "noise level σ (rms)", standoff: 4 } });
    layout[`yaxis${a}`] = axis({ domain: box.y, anchor: `x${a}`, range: [low, top], showgrid: true, gridcolor: GRID, showticklabels: first, title: first ? { text: name, standoff: 4 } : undefined });
    layout.annotations.push(heading(`<b>${panel.title}</b>`, box));
    const [value, error] = source.control[panel.at];
    const share = (n, k) => (answered && n !== null ? `<br>at ${Math.round(100 * answered[i][n][k])} % of the images` : "");
    const said = (who, values, errors, n) => values.map((v, k) => `${who}, ${sigmaText(page, k)}<br><b>${pm(v, errors[k])}</b>${what}${share(n, k)}`);
    const hovertemplate = "%{text}<extra></extra>";
    const control = curve(x, value, error, "#57606a", { axes, text: said(source.control.name, value, error, null), hovertemplate, line: { dash: "dash", width: 1.5 } });
    const learned = page.sizes.flatMap((size, n) => {
      const color = page.colours[n], text = said(`N = ${size}`, panel.value[n], panel.stderr[n], n);
      const only = (few) => panel.value[n].map((v, k) => (answered && (answered[i][n][k] < enough) !== few ? null : v));
      const more = answered ? { mode: "lines+markers", marker: { color, size: 5 } } : {};
      const lines = curve(x, answered ? only(false) : panel.value[n], panel.stderr[n], color, { axes, text, hovertemplate, line: { width: n === state.size ? 3.2 : 1.8 }, ...more });
      const rings = { type: "scatter", x, y: only(true), mode: "markers", marker: { color, symbol: "circle-open", size: 7 }, text, hovertemplate, showlegend: false, ...axes };
      return answered ? [...lines, rings] : lines;
    });
    return [...control, ...learned];
  });
  return { traces, layout };
}
