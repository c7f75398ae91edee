// Child process: call one function of every version on every input; a line of JSON a version.
"use strict";
const fs = require("fs");
const vm = require("vm");
const util = require("util");

const job = JSON.parse(fs.readFileSync("job.json", "utf8"));
const limit = job.milliseconds;
const tooLong = (error) => error && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
const answer = (place, values) => fs.writeSync(1, JSON.stringify([place, values]) + "\n");
const show = (value) =>
  util
    .inspect(value, { depth: 6, sorted: true, maxArrayLength: 200, maxStringLength: 2000 })
    .replace(/\[(class|Function|AsyncFunction|GeneratorFunction)[^\]]*\]/g, "[$1]")
    .slice(0, 2000);

job.sources.forEach((source, place) => {
  let printed = "";
  const log = (...all) => {
    if (printed.length < 500) printed += util.format(...all) + "\n";
  };
  const context = vm.createContext({ console: { log, error: log, warn: log, info: log } });
  try {
    vm.runInContext(source, context, { timeout: 4 * limit });
    vm.runInContext(`globalThis.__f = ${job.function}`, context, { timeout: limit });
  } catch (error) {
    if (tooLong(error)) answer(place, job.inputs.map(() => "too long"));
    return;
  }
  const values = job.inputs.map((text) => {
    printed = "";
    try {
      // The arguments are made inside, so that their prototypes are the ones the code knows.
      vm.runInContext(`globalThis.__a = ${text}`, context, { timeout: limit });
      const value = vm.runInContext("__f(...__a)", context, { timeout: limit });
      return `${show(value)} | ${show(context.__a)} | ${printed.slice(0, 500)}`;
    } catch (error) {
      if (tooLong(error)) return "too long";
      return `${error && error.name} | ${printed.slice(0, 500)}`;
    }
  });
  answer(place, values);
});
