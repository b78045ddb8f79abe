// Copies the scripts that the portal serves itself, with their licences, out of node_modules.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";

const packages = [
  { name: "htmx.org", folder: "htmx", script: "dist/htmx.min.js", licence: "LICENSE" },
  { name: "chart.js", folder: "chartjs", script: "dist/chart.umd.min.js", licence: "LICENSE.md" },
];

// The built style sheet contains parts of these two.
for (const name of ["tailwindcss", "daisyui"]) {
  mkdirSync(`static/vendor/${name}`, { recursive: true });
  copyFileSync(`node_modules/${name}/LICENSE`, `static/vendor/${name}/LICENSE`);
}

for (const { name, folder, script, licence } of packages) {
  const target = `static/vendor/${folder}`;
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  mkdirSync(target, { recursive: true });
  const text = readFileSync(`node_modules/${name}/${script}`, "utf8");
  // The source map is not shipped, so its address would only be a 404 in the browser's console.
  writeFileSync(`${target}/${script.split("/").at(-1)}`, text.replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "\n"));
  copyFileSync(`node_modules/${name}/${licence}`, `${target}/LICENSE`);
  writeFileSync(`${target}/VERSION`, `${name} ${version}\n`);
}
