// Child process: call one function of every version on every input; a line of JSON a version.
"use strict";
const fs = require("fs");
const vm = require("vm");
const util = require("util");

const job = JSON.parse(fs.readFileSync("job.json", "utf8"));
// Only wall time can interrupt a call: one that got too little of the processor is tried again.
const wall = 3 * job.milliseconds;
const tries = 8;
const slow = Symbol("too long");
// Inputs on which the first source takes too long tell nothing of the others.
const untold = new Set();
const show = (value) =>
  util
    .inspect(value, { depth: 6, sorted: true, maxArrayLength: 200, maxStringLength: 2000 })
    .replace(/\[(class|Function|AsyncFunction|GeneratorFunction)[^\]]*\]/g, "[$1]")
    .slice(0, 2000);

const limited = (attempt) => {
  for (let count = 0; count < tries; count++) {
    const before = process.cpuUsage();
    try {
      return attempt();
    } catch (error) {
      if (!error || error.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
      const used = process.cpuUsage(before);
      if (used.user + used.system >= 1000 * job.milliseconds) break;
    }
  }
  return slow;
};

job.sources.forEach((source, place) => {
  let printed = "";
  const log = (...all) => {
    if (printed.length < 500) printed += util.format(...all) + "\n";
  };
  let context = null;
  const load = () => {
    context = vm.createContext({ console: { log, error: log, warn: log, info: log } });
    vm.runInContext(source, context, { timeout: 4 * wall });
    vm.runInContext(`globalThis.__f = ${job.function}`, context, { timeout: wall });
  };
  let late = 0;
  try {
    if (limited(load) === slow) late = job.patience;
  } catch (error) {
    return;
  }
  const values = job.inputs.map((text, at) => {
    if (late >= job.patience || untold.has(at)) return "too long";
    const call = () => {
      printed = "";
      // The arguments are made inside, so that their prototypes are the ones the code knows.
      vm.runInContext(`globalThis.__a = ${text}`, context, { timeout: wall });
      const value = vm.runInContext("__f(...__a)", context, { timeout: wall });
      return `${show(value)} | ${show(context.__a)} | ${printed.slice(0, 500)}`;
    };
    try {
      const outcome = limited(call);
      if (outcome !== slow) return outcome;
      late += 1;
      return "too long";
    } catch (error) {
      return `${error && error.name} | ${printed.slice(0, 500)}`;
    }
  });
  if (place === 0) values.forEach((value, at) => value === "too long" && untold.add(at));
  fs.writeSync(1, JSON.stringify([place, values]) + "\n");
});
