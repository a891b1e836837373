// The bare Node baseline: what a user would write without a function service. Parses the JSON body, says hello.
// Arguments: the port to listen on.
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    try {
      JSON.parse(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces));
    } catch {
      response.writeHead(400).end();
      return;
    }
    response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': 12 });
    response.end('Hello world!');
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
