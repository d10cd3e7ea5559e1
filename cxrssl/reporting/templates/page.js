"use strict";
// Radiographs whose patches are compared by the cosine similarity of their tokens, and folds that
// open for printing.
const RAMP = [[87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(strength) {
  const place = strength * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, channel) => value + (place - low) * (RAMP[low + 1][channel] - value));
}

function decode(text) {
  return new Int8Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function start(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const [rows, columns] = data.grid, width = data.width, patches = rows * columns;
  const codes = decode(data.codes), films = [...root.querySelectorAll(".film")];
  const lengths = new Float32Array(films.length * patches);
  for (let token = 0; token < lengths.length; token++) {
    let sum = 0;
    for (let i = token * width; i < (token + 1) * width; i++) sum += codes[i] * codes[i];
    lengths[token] = Math.sqrt(sum) || 1;
  }
  let image = 0, patch = 0;

  function similarities(other) {
    const query = image * patches + patch, found = new Float32Array(patches);
    for (let number = 0; number < patches; number++) {
      const token = other * patches + number;
      let sum = 0;
      for (let i = 0; i < width; i++) sum += codes[query * width + i] * codes[token * width + i];
      found[number] = sum / (lengths[query] * lengths[token]);
    }
    return found;
  }

  function paint(film, found, isQuery) {
    const canvas = film.querySelector("canvas"), mark = film.querySelector(".mark");
    canvas.width = columns;
    canvas.height = rows;
    const pixels = new ImageData(columns, rows);
    const sorted = Float32Array.from(found).sort();
    const low = sorted[patches >> 1], span = Math.max(sorted[patches - 1] - low, 1e-6);
    found.forEach((value, number) => {
      const strength = Math.max(0, (value - low) / span);
      pixels.data.set([...colour(strength), 200 * strength], 4 * number);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const best = isQuery ? patch : found.indexOf(sorted[patches - 1]);
    mark.style.left = `${((best % columns) + 0.5) / columns * 100}%`;
    mark.style.top = `${(Math.floor(best / columns) + 0.5) / rows * 100}%`;
    mark.style.display = "block";
    mark.classList.toggle("query", isQuery);
    film.dataset.match = best;
    film.dataset.similarity = found[best].toFixed(3);
    film.parentElement.querySelector("output").textContent = isQuery ? "chosen" : found[best].toFixed(2);
  }

  function choose(newImage, newPatch) {
    image = newImage;
    patch = newPatch;
    let best = -1, most = -Infinity;
    films.forEach((film, other) => {
      paint(film, similarities(other), other === image);
      const value = Number(film.dataset.similarity);
      if (other !== image && value > most) [best, most] = [other, value];
    });
    const row = Math.floor(patch / columns) + 1, column = (patch % columns) + 1;
    root.querySelector(".status").textContent =
      `${data.labels[image]}, row ${row}, column ${column}` +
      (best < 0 ? "." : `; most alike: ${data.labels[best]}, similarity ${most.toFixed(2)}.`);
    root.querySelectorAll("button").forEach((button, number) => {
      const point = data.points[number];
      button.setAttribute("aria-pressed", point.image === image && point.patch === patch);
    });
  }

  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const clamp = (value, side) => Math.min(Math.max(value, 0), side - 1);
  films.forEach((film, number) => {
    film.addEventListener("click", (event) => {
      const box = film.getBoundingClientRect();
      const row = clamp(Math.floor((event.clientY - box.top) / box.height * rows), rows);
      const column = clamp(Math.floor((event.clientX - box.left) / box.width * columns), columns);
      choose(number, row * columns + column);
    });
    film.addEventListener("keydown", (event) => {
      if (!(event.key in step)) return;
      event.preventDefault();
      const from = Number(film.dataset.match), [down, right] = step[event.key];
      const row = clamp(Math.floor(from / columns) + down, rows);
      choose(number, row * columns + clamp((from % columns) + right, columns));
    });
  });
  for (const point of data.points) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = point.name;
    button.addEventListener("click", () => choose(point.image, point.patch));
    root.querySelector(".points").append(button);
  }
  const first = data.points[0] || { image: 0, patch: Math.floor(rows / 2) * columns + (columns >> 1) };
  choose(first.image, first.patch);
}

document.querySelectorAll(".correspondence").forEach(start);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));
