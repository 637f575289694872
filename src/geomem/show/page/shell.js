// What every page does: light or dark, words with their meaning, contents, figures as files, texts to copy.
"use strict";

const shell = (() => {
  const root = document.documentElement, prefers = window.matchMedia("(prefers-color-scheme: dark)");
  const savers = {}; // of figures that a script draws: id -> (format) => promise of a URL
  const theme = () => root.dataset.theme || (prefers.matches ? "dark" : "light");
  const make = (name, more, ...children) => {
    const made = Object.assign(document.createElement(name), more);
    made.append(...children);
    return made;
  };

  // ------------------------------------------------------------------------ light or dark

  function tell() {
    const button = document.getElementById("theme"), other = theme() === "dark" ? "Light" : "Dark";
    if (button) {
      button.textContent = other;
      button.setAttribute("aria-label", `${other} colours`);
    }
  }

  function retell() {
    tell();
    document.dispatchEvent(new Event("theme"));
  }

  function turn() {
    const wanted = theme() === "dark" ? "light" : "dark";
    root.dataset.theme = wanted;
    try { localStorage.setItem("geomem-theme", wanted); } catch { /* a page without a memory */ }
    retell();
  }

  try {
    const kept = localStorage.getItem("geomem-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* as above */ }

  // ---------------------------------------------------------------------------- the words

  function explain() {
    const tip = document.getElementById("tip");
    let shown = null;
    const hide = () => {
      if (shown) shown.removeAttribute("aria-describedby");
      shown = null;
      tip.hidden = true;
    };
    const show = (word) => {
      if (shown !== word) hide();
      shown = word;
      tip.textContent = word.dataset.meaning;
      tip.hidden = false;
      word.setAttribute("aria-describedby", "tip");
      const at = word.getClientRects()[0], { width, height } = tip.getBoundingClientRect();
      const below = at.bottom + 8 + height < root.clientHeight;
      tip.style.left = `${Math.max(8, Math.min(at.left, root.clientWidth - width - 8))}px`;
      tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - height - 6)}px`;
    };
    for (const word of document.querySelectorAll("abbr[title]")) {
      word.dataset.meaning = word.title; // a browser's own box would stand above ours
      word.removeAttribute("title");
      for (const event of ["mouseenter", "focus", "click"]) word.addEventListener(event, () => show(word));
      for (const event of ["mouseleave", "blur"]) word.addEventListener(event, hide);
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    window.addEventListener("scroll", () => { if (shown && shown !== document.activeElement) hide(); }, { passive: true });
    window.addEventListener("beforeprint", hide);
  }

  // ------------------------------------------------------------------------- the contents

  function follow() {
    const links = [...document.querySelectorAll(".contents a")], bar = document.querySelector(".contents ol");
    const titles = links.map((link) => document.getElementById(link.hash.slice(1)));
    const mark = () => {
      const line = Math.max(140, 0.3 * root.clientHeight);
      const end = window.scrollY + root.clientHeight >= root.scrollHeight - 2;
      let here = titles.findLastIndex((title) => title && title.getBoundingClientRect().top < line);
      if (end && window.scrollY > 0) here = titles.length - 1;
      links.forEach((link, i) => {
        const was = link.hasAttribute("aria-current");
        link.toggleAttribute("aria-current", i === here);
        if (i === here && !was && bar.scrollWidth > bar.clientWidth) bar.scrollLeft = link.offsetLeft - bar.offsetLeft - 40;
      });
    };
    window.addEventListener("scroll", mark, { passive: true });
    mark();
  }

  // ------------------------------------------------------------------------ figures as files

  const fetched = (url) => new Promise((found, failed) => {
    const picture = new Image();
    picture.onload = () => found(picture);
    picture.onerror = failed;
    picture.src = url;
  });

  // A figure that stands in the page as SVG: with the light page's colours written into it, on white.
  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size", "text-anchor"];

  function inlineUrl(svg) {
    const was = root.dataset.theme, copy = svg.cloneNode(true), { width, height } = svg.viewBox.baseVal;
    root.dataset.theme = "light";
    const made = [copy, ...copy.querySelectorAll("*")];
    [svg, ...svg.querySelectorAll("*")].forEach((part, i) => {
      const style = getComputedStyle(part);
      for (const name of STYLES) made[i].style.setProperty(name, style.getPropertyValue(name));
    });
    if (was) root.dataset.theme = was;
    else delete root.dataset.theme;
    const ground = document.createElementNS(svg.namespaceURI, "rect");
    for (const [name, value] of Object.entries({ width, height, fill: "#fff" })) ground.setAttribute(name, value);
    copy.prepend(ground);
    for (const [name, value] of Object.entries({ width, height })) copy.setAttribute(name, value);
    return `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  }

  async function drawnUrl(figure, format) {
    const svg = figure.querySelector("svg"), source = svg ? inlineUrl(svg) : figure.querySelector("img.light").src;
    if (format === "svg") return source;
    const picture = await fetched(source), canvas = make("canvas", {});
    [canvas.width, canvas.height] = [2 * picture.naturalWidth, 2 * picture.naturalHeight];
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  }

  function titleOf(figure) {
    const inner = figure.querySelector("img, svg");
    return figure.getAttribute("aria-label") || (inner && (inner.alt || inner.getAttribute("aria-label"))) || figure.id;
  }

  async function save(figure, format) {
    const url = savers[figure.id] ? await savers[figure.id](format) : await drawnUrl(figure, format);
    const name = figure.id || titleOf(figure).toLowerCase().replace(/[^a-z0-9]+/g, "-");
    make("a", { href: url, download: `${document.body.dataset.file}-${name}.${format}` }).click();
    return url;
  }

  function offer() {
    const drawn = [...document.querySelectorAll(".figure")].filter((f) => savers[f.id] || f.querySelector("img.light"));
    for (const figure of [...drawn, ...[...document.querySelectorAll("figure > svg")].map((svg) => svg.parentElement)]) {
      const buttons = ["svg", "png"].map((format) => {
        const button = make("button", { type: "button", textContent: format.toUpperCase() });
        button.setAttribute("aria-label", `Save as ${format.toUpperCase()}: ${titleOf(figure)}`);
        button.addEventListener("click", () => save(figure, format));
        return button;
      });
      const offered = make("p", { className: "save" }, "Save as ", ...buttons);
      if (figure.tagName === "FIGURE") figure.append(offered);
      else figure.after(offered);
    }
    for (const text of document.querySelectorAll("[data-copied]")) {
      const button = make("button", { type: "button", textContent: "Copy" });
      button.addEventListener("click", async () => {
        try { await navigator.clipboard.writeText(text.textContent); } catch {
          getSelection().selectAllChildren(text);
          document.execCommand("copy"); // pages from disk may not use the clipboard
        }
        button.textContent = "Copied";
      });
      text.after(make("p", { className: "save" }, button));
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", turn);
    prefers.addEventListener("change", retell);
    explain();
    follow();
    offer();
    tell();
  });
  return { theme, savers, save };
})();
