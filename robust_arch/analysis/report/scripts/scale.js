// From values to places on an axis, and round values to write beside it.

const LOGARITHMIC_FROM = 20; // largest over smallest: beyond it most points of a linear axis would share one corner
const GOOD_ROOM = 60; // pixels from one number beside an axis to the next
const LEAST_ROOM = 40; // where that leaves fewer numbers than are wanted
const LEAST_TICKS = 3;

function axis(low, high, from, to, logarithmic) {
  const by = logarithmic ? Math.log : (value) => value;
  const span = by(high) - by(low) || 1;
  return {
    at: (value) => from + ((by(value) - by(low)) / span) * (to - from),
    ticks: (logarithmic ? decades : steps)(low, high, Math.abs(to - from)),
  };
}

function steps(low, high, length) {
  const wide = multiples(low, high, (GOOD_ROOM * (high - low)) / length);
  return wide.length >= LEAST_TICKS ? wide : multiples(low, high, (LEAST_ROOM * (high - low)) / length);
}

// of the least round number that is not below `rough`
function multiples(low, high, rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
}

// at 1, 2 and 5 of every power of ten, at 1 and 3, or at 1: as many as have room
function decades(low, high, length) {
  const decade = length / Math.log10(high / low);
  const [leading] = [
    [[1, 2, 5], Math.log10(2)],
    [[1, 3], Math.log10(3)],
    [[1], 0],
  ].find(([, closest]) => !closest || closest * decade >= LEAST_ROOM);
  const powers = Array.from({ length: 40 }, (_, index) => 10 ** (index - 6));
  return powers.flatMap((power) => leading.map((digit) => digit * power)).filter((value) => value >= low && value <= high);
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
