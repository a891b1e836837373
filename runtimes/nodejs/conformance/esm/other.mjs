export const name = 'esm';
