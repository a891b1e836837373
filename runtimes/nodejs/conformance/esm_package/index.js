import { createRequire } from 'module';

console.log('loading');
export const handler = (event, context, callback) => callback(null, typeof createRequire);
