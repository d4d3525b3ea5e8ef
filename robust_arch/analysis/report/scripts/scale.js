// From values to places on an axis, and round values to write beside it.

const LOGARITHMIC_FROM = 20; // largest over smallest: beyond it most points of a linear axis would share one corner

function axis(low, high, from, to, logarithmic) {
  const by = logarithmic ? Math.log : (value) => value;
  const span = by(high) - by(low) || 1;
  return {
    at: (value) => from + ((by(value) - by(low)) / span) * (to - from),
    ticks: (logarithmic ? decades : steps)(low, high, Math.max(2, Math.floor(Math.abs(to - from) / 65))),
  };
}

function steps(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
}

function decades(low, high, most) {
  const powers = Array.from({ length: 40 }, (_, index) => 10 ** (index - 6));
  const fine = powers.flatMap((power) => [power, 2 * power, 5 * power]).filter((value) => value >= low && value <= high);
  return fine.length <= most ? fine : fine.filter((value) => Number.isInteger(Math.log10(value)));
}

function spread(values, logarithmic) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (logarithmic) return [low / 1.15, high * 1.15];
  const room = 0.06 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - room, high + room];
}

function short(value) {
  const unit = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => Math.abs(value) >= size);
  const [size, letter] = unit || [1, ""];
  return `${Number((value / size).toPrecision(4))}${letter ? ` ${letter}` : ""}`;
}
