// Pictures as numbers: decoded pixels, error maps, colours of maps, outlines of masks.
"use strict";

rfbench.pixels = (() => {
  // Inferno in eleven steps (matplotlib, CC0): even steps look even, also in grey and to those who see few colours.
  const STEPS = [[0, 0, 4], [22, 11, 57], [66, 10, 104], [106, 23, 110], [147, 38, 103], [188, 55, 84], [221, 81, 58], [243, 120, 25], [252, 165, 10], [246, 215, 70], [252, 255, 164]];

  // Of classes: Okabe and Ito's colours.
  const CLASSES = [[0, 158, 115], [86, 180, 233], [213, 94, 0], [230, 159, 0], [204, 121, 167], [0, 114, 178]];

  /** {width, height, data (RGBA)} of a data: address. */
  async function decode(url) {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  function colour(share) {
    const at = Math.min(1, Math.max(0, share)) * (STEPS.length - 1);
    const i = Math.min(STEPS.length - 2, Math.floor(at));
    return STEPS[i].map((low, c) => Math.round(low + (STEPS[i + 1][c] - low) * (at - i)));
  }

  /** The root mean square difference over R, G, B of two pictures of one size, in grey levels; NaN without data. */
  function difference(a, b, valid) {
    const found = new Float32Array(a.width * a.height);
    for (let i = 0; i < found.length; i += 1) {
      let sum = 0;
      for (let c = 0; c < 3; c += 1) sum += (a.data[4 * i + c] - b.data[4 * i + c]) ** 2;
      found[i] = valid && !valid.data[4 * i] ? NaN : Math.sqrt(sum / 3);
    }
    return { width: a.width, height: a.height, values: found };
  }

  /** A map of the report as numbers again. */
  function restored(picture, low, high) {
    const found = new Float32Array(picture.width * picture.height);
    for (let i = 0; i < found.length; i += 1) found[i] = low + (picture.data[4 * i] / 255) * (high - low);
    return { width: picture.width, height: picture.height, values: found };
  }

  /** A map of classes: their indices, NaN for a pixel that has none. */
  function classified(picture, count) {
    const found = Float32Array.from({ length: picture.width * picture.height }, (_, i) => (picture.data[4 * i] < count ? picture.data[4 * i] : NaN));
    return { width: picture.width, height: picture.height, values: found };
  }

  /** The value that a share of all values lie below. */
  function quantile(maps, share) {
    const all = [];
    for (const map of maps) for (let i = 0; i < map.values.length; i += 1 + Math.floor(map.values.length / 20000)) if (!Number.isNaN(map.values[i])) all.push(map.values[i]);
    all.sort((a, b) => a - b);
    return all.length ? all[Math.min(all.length - 1, Math.floor(all.length * share))] : 0;
  }

  function paint(map, low, high, isClasses) {
    const canvas = document.createElement("canvas");
    canvas.width = map.width;
    canvas.height = map.height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(map.width, map.height);
    const table = Array.from({ length: 256 }, (_, i) => colour(i / 255));
    for (let i = 0; i < map.values.length; i += 1) {
      const value = map.values[i];
      if (Number.isNaN(value)) continue; // transparent
      if (isClasses) {
        image.data.set([...CLASSES[value % CLASSES.length], 255], 4 * i);
        continue;
      }
      const share = high > low ? (value - low) / (high - low) : 0;
      const [r, g, b] = table[Math.min(255, Math.max(0, Math.round(255 * share)))];
      image.data.set([r, g, b, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function legend(canvas) {
    canvas.width = 256;
    canvas.height = 1;
    const context = canvas.getContext("2d");
    const image = context.createImageData(256, 1);
    for (let i = 0; i < 256; i += 1) image.data.set([...colour(i / 255), 255], 4 * i);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /** The outline of a mask as a path along the edges of its pixels, runs joined. */
  function outline(mask) {
    const { width, height, data } = mask;
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[4 * (y * width + x)] > 127;
    const parts = [];
    for (let y = 0; y <= height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (inside(x, y) === inside(x, y - 1)) continue;
        const from = x;
        while (x + 1 < width && inside(x + 1, y) !== inside(x + 1, y - 1)) x += 1;
        parts.push(`M${from} ${y}H${x + 1}`);
      }
    }
    for (let x = 0; x <= width; x += 1) {
      for (let y = 0; y < height; y += 1) {
        if (inside(x, y) === inside(x - 1, y)) continue;
        const from = y;
        while (y + 1 < height && inside(x, y + 1) !== inside(x - 1, y + 1)) y += 1;
        parts.push(`M${x} ${from}V${y + 1}`);
      }
    }
    return parts.join("");
  }

  return { decode, difference, restored, classified, quantile, paint, legend, outline, CLASSES };
})();
