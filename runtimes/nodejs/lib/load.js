'use strict';
// Finds a function's handler: environment, module, export, and a clear sentence when that fails.

const fs = require('fs');
const Module = require('module');
const path = require('path');
const { pathToFileURL } = require('url');
const { LoadError, userStack } = require('./failure');

// A module's file, in the order of the search; a folder with index.js or a package.json comes last.
const ENDINGS = ['.js', '.cjs', '.mjs'];
const VENDOR_FOLDER = 'vendor';
const LAYER_MODULES = '/opt/nodejs/node_modules';

// The function's own variables, and the names under which AWS's libraries look for what they run in.
function applyEnvironment(about, taskDir) {
  Object.assign(process.env, {
    LAMBDA_TASK_ROOT: taskDir,
    _HANDLER: about.handler,
    AWS_LAMBDA_FUNCTION_NAME: about.functionName,
    AWS_LAMBDA_FUNCTION_VERSION: about.functionVersion,
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(about.memoryMB),
  }, about.env);
  // Node reads NODE_PATH when it starts; these may have come since.
  const places = [process.env.NODE_PATH, path.join(taskDir, VENDOR_FOLDER), LAYER_MODULES]
    .filter((place) => place && (place === process.env.NODE_PATH || fs.existsSync(place)));
  if (places.length > 0) {
    process.env.NODE_PATH = places.join(path.delimiter);
    Module._initPaths();
  }
}

// `folder/module.export`, where the export may be nested (`module.a.b`). Returns a function, or a promise of one.
function findHandler(spec, taskDir) {
  const base = path.basename(spec);
  const dot = base.indexOf('.');
  if (dot <= 0 || dot === base.length - 1) {
    throw new LoadError('Runtime.MalformedHandlerName', `handler '${spec}' is not of the form module.function`);
  }
  const moduleName = path.join(path.dirname(spec), base.slice(0, dot));
  const names = base.slice(dot + 1).split('.');
  const file = findFile(spec, moduleName, taskDir);
  const loaded = loadModule(moduleName, file);
  if (loaded instanceof Promise) return loaded.then((exports) => pick(exports, names, spec, moduleName));
  return pick(loaded, names, spec, moduleName);
}

function findFile(spec, moduleName, taskDir) {
  const place = path.resolve(taskDir, moduleName);
  for (const ending of ENDINGS) {
    if (fs.existsSync(place + ending)) return place + ending;
  }
  try {
    return require.resolve(place);
  } catch {
    throw new LoadError('Runtime.ImportModuleError', `handler '${spec}' not found: there is no module '${moduleName}' `
      + `in ${taskDir} (expected ${ENDINGS.map((ending) => path.basename(moduleName) + ending).join(', ')})`);
  }
}

// The module's exports, or a promise of them if it is an ES module.
function loadModule(moduleName, file) {
  if (file.endsWith('.mjs')) return importModule(moduleName, file);
  try {
    return require(file);
  } catch (error) {
    // The second is for newer Nodes, which require() ES modules unless these await.
    if (error && (error.code === 'ERR_REQUIRE_ESM' || error.code === 'ERR_REQUIRE_ASYNC_MODULE')) return importModule(moduleName, file);
    throw explain(moduleName, error);
  }
}

async function importModule(moduleName, file) {
  try {
    return await import(pathToFileURL(file));
  } catch (error) {
    throw explain(moduleName, error);
  }
}

// What is thrown for an error while a module was loaded.
function explain(moduleName, error) {
  if (!(error instanceof Error)) return error;
  if (error.code === 'MODULE_NOT_FOUND' || error.code === 'ERR_MODULE_NOT_FOUND') {
    const reason = error.message.split('\n')[0];
    return new LoadError('Runtime.ImportModuleError', `cannot load module '${moduleName}': ${reason}`, userStack(error));
  }
  // The stack of an error of the parser begins with its place; JSON.parse's and the like with the error's name.
  const place = /^(?:file:\/\/)?(\/.*:\d+)$/m.exec(String(error.stack).split('\n')[0]);
  if (error instanceof SyntaxError && place !== null) {
    return new LoadError('Runtime.UserCodeSyntaxError', `syntax error in module '${moduleName}': ${error.message} (${place[1]})`, userStack(error));
  }
  if (error instanceof SyntaxError && !String(error.stack).includes(' at JSON.parse')) { // ES modules have no place
    return new LoadError('Runtime.UserCodeSyntaxError', `syntax error in module '${moduleName}': ${error.message}`, userStack(error));
  }
  return error;
}

function pick(exports, names, spec, moduleName) {
  // A CommonJS module seen through import() has its exports under `default`, an ES module may export an object there.
  for (const holder of [exports, exports && exports.default]) {
    const found = names.reduce((value, name) => (value === undefined || value === null ? undefined : value[name]), holder);
    if (typeof found === 'function') return found;
    if (found !== undefined) {
      throw new LoadError('Runtime.HandlerNotFound', `handler '${spec}' cannot be called: '${names.join('.')}' is of type ${typeof found}`);
    }
  }
  throw new LoadError('Runtime.HandlerNotFound', `handler '${spec}' not found: module '${moduleName}' has no export '${names.join('.')}'`);
}

module.exports = { applyEnvironment, findHandler };
