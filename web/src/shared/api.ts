// Requests to the origin that served this page: JSON in and out, errors as the server words them.
// Keeps no state but whether the page is already on its way to the login page.

import { base } from './base';

/** A refused request, with the server's own words; status 0 where no answer came. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly help: string | null;
  readonly missing: string[];

  constructor(status: number, code: string, message: string, help: string | null = null, missing: string[] = []) {
    super(message);
    this.status = status;
    this.code = code;
    this.help = help;
    this.missing = missing;
  }
}

const PLAIN: Record<number, string> = {
  0: 'No answer. The connection may be interrupted.',
  403: 'This is not allowed.',
  404: 'There is no such thing.',
  409: 'This does not fit the present state.',
  412: 'It changed in the meantime.',
  413: 'This is too large.',
  429: 'Too many requests. Try again in a moment.',
  502: 'The workspace does not answer at the moment.',
  503: 'The workspace does not answer at the moment.',
  504: 'The workspace did not answer in time.',
};

/** Reads `{"error":{…}}`; anything else becomes a plain sentence, never the raw body. */
export function parseError(status: number, body: string): ApiError {
  try {
    const error: unknown = (JSON.parse(body) as { error?: unknown }).error;
    if (error && typeof error === 'object') {
      const { code, message, help, missing } = error as Record<string, unknown>;
      return new ApiError(
        status,
        typeof code === 'string' ? code : `Status${status}`,
        typeof message === 'string' && message ? sentence(message) : plain(status),
        typeof help === 'string' ? sentence(help) : null,
        Array.isArray(missing) ? missing.filter((text): text is string => typeof text === 'string') : [],
      );
    }
  } catch {
    // Not JSON: the plain sentence below says enough.
  }
  return new ApiError(status, `Status${status}`, plain(status));
}

function plain(status: number): string {
  return PLAIN[status] ?? `The server answered with status ${status}.`;
}

/** Server messages are lower case without a full stop; on a page they stand as sentences. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (!trimmed) return trimmed;
  const first = trimmed[0] ?? '';
  const capital = first.toUpperCase() + trimmed.slice(1);
  return /[.!?:…)\]]$/.test(capital) ? capital : `${capital}.`;
}

/** Goes to the login page, which the server gives in place of this one; at most every ten seconds. */
export function login(): void {
  const key = `workshop.login ${base}`;
  const last = Number(sessionStorage.getItem(key) ?? 0);
  if (Date.now() - last < 10_000) return;
  sessionStorage.setItem(key, String(Date.now()));
  location.reload();
}

/** Sends a request below the base path; throws ApiError for everything but success. */
export async function send(method: string, path: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(base + path, { method, cache: 'no-store', credentials: 'same-origin', ...options });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === 'AbortError') throw cause;
    throw new ApiError(0, 'NoAnswer', plain(0));
  }
  if (response.ok) return response;
  const error = parseError(response.status, await response.text().catch(() => ''));
  if (response.status === 401) login();
  throw error;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await send('GET', path, signal ? { signal } : {})).json() as Promise<T>;
}

/** Sends JSON (or nothing) and reads JSON where there is some. */
export async function post<T>(path: string, body?: unknown, method = 'POST'): Promise<T | null> {
  const options: RequestInit =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
  const text = await (await send(method, path, options)).text();
  return text ? (JSON.parse(text) as T) : null;
}

/** What to tell a person about anything that was thrown. */
export function explain(cause: unknown): string {
  if (cause instanceof ApiError) return cause.help ? `${cause.message} ${cause.help}` : cause.message;
  return 'Something went wrong on this page.';
}
