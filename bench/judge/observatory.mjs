// Runs MDN's HTTP Observatory against one name, wherever its ports 80 and 443 are, and prints its verdict as JSON:
//   node observatory.mjs NODE_MODULES NAME HTTP_PORT HTTPS_PORT
import { writeFileSync } from "node:fs";
import net from "node:net";
import { pathToFileURL } from "node:url";

const [modules, name, http, https] = process.argv.slice(2);
const scanner = `${modules}/@mdn/mdn-http-observatory`;
// Who is preloaded in browsers: nobody, as far as these judges know. After an install it would come from the internet.
writeFileSync(`${scanner}/conf/hsts-preload.json`, "{}");

// Connections to the name go to this machine, and to nowhere else.
const ports = { 80: Number(http), 443: Number(https) };
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const [options, done] = given.flat();
  if (options.host !== name || !ports[options.port]) {
    throw new Error(`nothing but ${name} is judged, and not ${options.host}:${options.port}`);
  }
  return connect.call(this, { ...options, host: "127.0.0.1", port: ports[options.port] }, done);
};

const { scan } = await import(pathToFileURL(`${scanner}/src/scanner/index.js`));
console.log(JSON.stringify(await scan(name)));
