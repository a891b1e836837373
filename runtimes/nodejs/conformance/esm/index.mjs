import { name } from './other.mjs';
const ready = await Promise.resolve('ready');

export const handler = async (event) => `${name} ${ready} ${event.tag}`;
