// Where this page is served, and the addresses that follow from it. Asks nobody.

/** The base path with slashes at both ends, e.g. `/` or `/w/alice/`. */
export function baseOf(pathname: string): string {
  return pathname.slice(0, pathname.lastIndexOf('/') + 1) || '/';
}

export const base: string = baseOf(location.pathname);

/** The address of a WebSocket below the base path. */
export function socketAddress(path: string): string {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return `${scheme}//${location.host}${base}${path}`;
}
