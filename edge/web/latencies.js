// Distributions of durations, as hosts tell them, and the plot of one: time to the right, duration upwards, both as
// they come. Bucket b holds what took from 2^(b/4) to 2^((b+1)/4) microseconds.

const A_DOUBLING = 4;
const SLOTS = 36;
const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 560, height: 210, left: 52, right: 8, top: 8, bottom: 24 };

/** All hosts' slots together: [[began, Map(bucket -> count)]], oldest first. */
export function together(all) {
  const slots = new Map();
  for (const { slots: own } of all) {
    for (const [began, counts] of own) {
      const into = slots.get(began) ?? slots.set(began, new Map()).get(began);
      for (const [bucket, count] of counts) into.set(bucket, (into.get(bucket) ?? 0) + count);
    }
  }
  return [...slots].sort((a, b) => a[0] - b[0]);
}

export const total = (counts) => [...counts.values()].reduce((sum, count) => sum + count, 0);

/** The upper edge of the bucket in which that share of `counts` ends, in seconds; null when there are none. */
export function quantile(counts, share) {
  let left = total(counts) * share;
  if (left === 0) return null;
  const buckets = [...counts].sort((a, b) => a[0] - b[0]);
  for (const [bucket, count] of buckets) {
    left -= count;
    if (left <= 1e-9) return secondsOf(bucket + 1);
  }
  return secondsOf(buckets.at(-1)[0] + 1);
}

export const merged = (slots) => {
  const all = new Map();
  for (const [, counts] of slots) for (const [bucket, count] of counts) all.set(bucket, (all.get(bucket) ?? 0) + count);
  return all;
};

const secondsOf = (bucket) => 2 ** (bucket / A_DOUBLING) / 1e6;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  const digits = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 120) return `${digits(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${digits(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A heat map with the median and the 99th percentile of each slot; `label` says in words what it shows. */
export function plot(slots, slotSeconds, nowSeconds, label) {
  const { width, height, left, right, top, bottom } = SIZE;
  const svg = shape("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const buckets = [...merged(slots).keys()];
  // Whole tenfold steps around what there is.
  const low = Math.floor(Math.log10(secondsOf(Math.min(...buckets))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(secondsOf(Math.max(...buckets) + 1))));
  const y = (seconds) => top + (height - top - bottom) * (1 - (Math.log10(seconds) - low) / (high - low));
  const newest = Math.floor(nowSeconds / slotSeconds) * slotSeconds;
  const step = (width - left - right) / SLOTS;
  const x = (began) => width - right - step * (1 + (newest - began) / slotSeconds);

  for (let power = low; power <= high; power += 1) {
    svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: y(10 ** power), y2: y(10 ** power) }));
    svg.append(shape("text", { x: left - 6, y: y(10 ** power) + 4, "text-anchor": "end" }, duration(10 ** power)));
  }
  for (const minutes of [6, 4, 2, 0]) {
    const at = width - right - (step * minutes * 60) / slotSeconds;
    const anchor = minutes === 0 ? "end" : minutes === 6 ? "start" : "middle";
    svg.append(
      shape("text", { x: at, y: height - 6, "text-anchor": anchor }, minutes === 0 ? "now" : `${minutes} min ago`),
    );
  }
  const most = Math.max(...slots.flatMap(([, counts]) => [...counts.values()]));
  for (const [began, counts] of slots) {
    for (const [bucket, count] of counts) {
      const upper = y(secondsOf(bucket + 1));
      const opacity = 0.18 + 0.82 * (Math.log(count + 1) / Math.log(most + 1));
      svg.append(
        shape("rect", {
          class: "cell",
          x: x(began) + 0.5,
          y: upper,
          width: step - 1,
          height: Math.max(1, y(secondsOf(bucket)) - upper),
          "fill-opacity": opacity.toFixed(2),
        }),
      );
    }
  }
  for (const [name, share] of [
    ["p50", 0.5],
    ["p99", 0.99],
  ]) {
    const points = slots.map(([began, counts]) => `${x(began) + step / 2},${y(quantile(counts, share))}`);
    svg.append(shape("polyline", { class: name, points: points.join(" ") }));
  }
  return svg;
}
