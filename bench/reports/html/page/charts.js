// Figures, drawn from the report's own numbers: the perception-distortion plane, and one metric image by image.
"use strict";

rfbench.prepare.push((index) => {
  const { make, draw, shown, named } = rfbench;
  const place = document.getElementById("figures");
  if (!place) return;
  const SHAPES = 6;
  // As wide as the room, so that letters keep their size on a small screen.
  const room = () => Math.min(560, Math.max(300, document.documentElement.clientWidth - 64));

  /** About `count` round numbers within [low, high]. */
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push([n * step, (n * step).toFixed(decimals)]);
    return found;
  }

  function padded(values, share) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const room = (high - low || Math.abs(high) || 1) * share;
    return [low - room, high + room];
  }

  /** A row's own mark, which also print in grey and other eyes tell apart. */
  function mark(row, x, y, size) {
    const s = size;
    const paths = [
      `M${x - s} ${y}a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0z`,
      `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}z`,
      `M${x} ${y - 1.2 * s}l${1.15 * s} ${2.1 * s}h${-2.3 * s}z`,
      `M${x} ${y - 1.35 * s}l${1.35 * s} ${1.35 * s}l${-1.35 * s} ${1.35 * s}l${-1.35 * s} ${-1.35 * s}z`,
      `M${x} ${y + 1.2 * s}l${1.15 * s} ${-2.1 * s}h${-2.3 * s}z`,
      `M${x - s / 2} ${y - 1.3 * s}h${s}v${0.8 * s}h${0.8 * s}v${s}h${-0.8 * s}v${0.8 * s}h${-s}v${-0.8 * s}h${-0.8 * s}v${-s}h${0.8 * s}z`,
    ];
    return draw("path", { d: paths[row % SHAPES], class: `of-row row-${row % SHAPES}` });
  }

  let drawn = 0;
  let metric = Object.keys(index.strips)[0];
  function fill() {
    if (drawn === room()) return;
    drawn = room();
    place.replaceChildren(...(index.plane ? [plane(index.plane)] : []), ...(metric ? [distributions()] : []));
    place.closest(".part").hidden = !place.childElementCount;
  }
  fill();
  addEventListener("resize", fill);

  function plane(found) {
    const W = room();
    const [H, left, bottom, top, right] = [Math.max(300, Math.round(0.71 * W)), 62, 46, 14, 18];
    const ends = (axis) => found.points.flatMap((p) => p[axis].filter((v) => v !== null));
    const [x0, x1] = padded(ends("x"), 0.1);
    const [y0, y1] = padded(ends("y"), 0.1);
    // Worse to the right and upwards, so that the best corner is the lower left.
    const fx = (v) => left + (W - left - right) * (found.xUp ? (x1 - v) / (x1 - x0) : (v - x0) / (x1 - x0));
    const fy = (v) => H - bottom - (H - top - bottom) * (found.yUp ? (y1 - v) / (y1 - y0) : (v - y0) / (y1 - y0));
    const title = `Perception-distortion plane: ${found.x} across, ${found.y} upwards`;
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}; ${found.points.map((p) => `${index.rows[p.row]} ${shown(p.x[0], null)}, ${shown(p.y[0], null)}`).join("; ")}` });
    for (const [v, text] of ticks(x0, x1, W / 90)) {
      svg.append(draw("line", { x1: fx(v), x2: fx(v), y1: top, y2: H - bottom, class: "rule" }),
        draw("text", { x: fx(v), y: H - bottom + 16, "text-anchor": "middle", class: "tick" }, text));
    }
    for (const [v, text] of ticks(y0, y1, 6)) {
      svg.append(draw("line", { x1: left, x2: W - right, y1: fy(v), y2: fy(v), class: "rule" }),
        draw("text", { x: left - 7, y: fy(v) + 4, "text-anchor": "end", class: "tick" }, text));
    }
    svg.append(
      draw("line", { x1: left, x2: W - right, y1: H - bottom, y2: H - bottom, class: "axis" }),
      draw("line", { x1: left, x2: left, y1: top, y2: H - bottom, class: "axis" }),
      draw("text", { x: (left + W - right) / 2, y: H - 8, "text-anchor": "middle" }, W > 400 ? `${found.x}, worse to the right` : found.x),
      draw("text", { x: 14, y: (top + H - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + H - bottom) / 2})` }, `${found.y}, worse upwards`),
      draw("text", { x: left + 8, y: H - bottom - 8, class: "soft" }, "↙ better"),
    );
    const labels = [];
    for (const point of found.points) {
      const colour = `line-row row-${point.row % SHAPES}`;
      const [x, xLow, xHigh] = point.x;
      const [y, yLow, yHigh] = point.y;
      if (xLow !== null) svg.append(draw("line", { x1: fx(xLow), x2: fx(xHigh), y1: fy(y), y2: fy(y), class: colour, "stroke-width": 1.6 }));
      if (yLow !== null) svg.append(draw("line", { x1: fx(x), x2: fx(x), y1: fy(yLow), y2: fy(yHigh), class: colour, "stroke-width": 1.6 }));
      svg.append(mark(point.row, fx(x), fy(y), 6));
      labels.push([fx(x), fy(y), index.rows[point.row]]);
    }
    const taken = [];
    for (const [x, y, text] of labels.sort((a, b) => a[1] - b[1])) {
      const atEnd = x + 14 + 6.4 * Math.min(text.length, 34) > W - right;
      let at = y - 10;
      while (taken.some(([other, side]) => side === atEnd && Math.abs(other - at) < 14)) at += 14;
      taken.push([at, atEnd]);
      svg.append(draw("text", { x: atEnd ? x - 11 : x + 11, y: at, "text-anchor": atEnd ? "end" : "start" }, text.length > 34 ? `${text.slice(0, 33)}…` : text));
    }
    return make("figure", { class: "chart" }, make("figcaption", {}, "Perception and distortion"), svg,
      make("p", {}, "Lines: 95 % intervals of the means over images, scenes as clusters."));
  }

  function distributions() {
    const figure = make("figure", { class: "chart" });
    const caption = make("figcaption", {}, "Every image");
    const area = make("div");
    const measures = index.measures.filter((m) => index.strips[m.name]);
    caption.append(rfbench.choice("Metric", measures.map((m) => [m.name, named(m)]), metric, strip));
    figure.append(caption, area, make("p", {}, "A dot an image (a click opens it); box and bar: quartiles and median; diamond: the mean; line: its 95 % interval."));
    strip(metric);
    return figure;

    function strip(name) {
      metric = name;
      const column = index.measures.findIndex((m) => m.name === name);
      const measure = index.measures[column];
      const strips = index.strips[name];
      const W = room();
      const [line, left, right] = [62, 12, 12];
      const H = strips.length * line + 40;
      const [low, high] = padded(index.images.flatMap((image) => image.values.map((of) => of[column])).filter((v) => v !== null), 0.03);
      const fx = (v) => left + (W - left - right) * (v - low) / (high - low);
      const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `${named(measure)} of every image: ${strips.map((s) => `${index.rows[s.row]} mean ${shown(s.number, measure.decimals)}`).join("; ")}` });
      for (const [v, text] of ticks(low, high, W / 80)) {
        svg.append(draw("line", { x1: fx(v), x2: fx(v), y1: 4, y2: H - 34, class: "rule" }),
          draw("text", { x: fx(v), y: H - 20, "text-anchor": "middle", class: "tick" }, text));
      }
      svg.append(draw("text", { x: W / 2, y: H - 3, "text-anchor": "middle" }, named(measure)));
      strips.forEach((one, i) => {
        const y = i * line + 38;
        svg.append(draw("text", { x: left, y: y - 22 }, index.rows[one.row]));
        index.images.forEach((image, n) => {
          const v = image.values[one.row][column];
          if (v === null) return;
          // Spread by the image's place, the same in every strip, so that an image is found again in the next one.
          const at = y + 11 * (2 * ((n * 0.618034) % 1) - 1);
          const dot = draw("circle", { cx: fx(v), cy: at, r: 3, class: `dot of-row row-${one.row % SHAPES}` }, draw("title", {}, `${image.name}: ${shown(v, measure.decimals)}`));
          if (image.n === undefined) { svg.append(dot); return; }
          // Out of the order of the tab key: the gallery has the same images as a list.
          svg.append(draw("a", { href: rfbench.address("image", { id: image.id, a: `r${one.row}` }), tabindex: -1, "aria-hidden": "true" }, dot));
        });
        const [q1, q2, q3] = one.quartiles.map(fx);
        svg.append(draw("rect", { x: q1, y: y - 13, width: Math.max(1, q3 - q1), height: 26, class: "box" }),
          draw("line", { x1: q2, x2: q2, y1: y - 13, y2: y + 13, class: "middle" }));
        if (one.low !== null) svg.append(draw("line", { x1: fx(one.low), x2: fx(one.high), y1: y, y2: y, class: `line-row row-${one.row % SHAPES}`, "stroke-width": 3 }));
        const m = fx(one.number);
        svg.append(draw("path", { d: `M${m} ${y - 6}l6 6l-6 6l-6 -6z`, class: "mean" }));
      });
      area.replaceChildren(svg);
    }
  }
});
