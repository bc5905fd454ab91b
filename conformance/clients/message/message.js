// Prints the result of GET URL with Node and the roots in the file ROOT: message.js ROOT URL.
const [, , root, url] = process.argv;
const client = require(url.startsWith("https:") ? "https" : "http");
client
  .get(url, { ca: require("fs").readFileSync(root) }, (response) => console.log(response.statusCode))
  .on("error", (error) => console.log(`${error.code}: ${error.message}`));
