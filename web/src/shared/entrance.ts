// The way in: a token or the owner's key from the fragment of the address, posted once and removed from the bar.

import { base } from './base';

export type Secret = { token: string } | { key: string };

/** The secret in a fragment, an address with one, or a bare code; null where there is none. */
export function parseSecret(text: string): Secret | null {
  const trimmed = text.trim();
  const hash = trimmed.indexOf('#');
  const fragment = hash >= 0 ? trimmed.slice(hash + 1) : trimmed;
  const values = new URLSearchParams(fragment);
  const token = values.get('token');
  if (token) return { token };
  const key = values.get('key');
  if (key) return { key };
  if (hash >= 0) return null;
  // A JWT has three parts; a key is one word.
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(trimmed)) return { token: trimmed };
  if (/^[\w+/=-]{16,}$/.test(trimmed)) return { key: trimmed };
  return null;
}

/** Takes the secret out of the address bar and the history. */
export function takeFragment(): Secret | null {
  const secret = parseSecret(location.hash);
  if (secret) history.replaceState(history.state, '', location.pathname + location.search);
  return secret;
}

export type Admission = 'admitted' | 'refused' | 'unreachable';

/** Exchanges the secret for the cookie. */
export async function admit(secret: Secret): Promise<Admission> {
  try {
    const response = await fetch(`${base}session`, {
      method: 'POST',
      body: JSON.stringify(secret),
      headers: { 'Content-Type': 'application/json' },
      credentials: 'same-origin',
      cache: 'no-store',
    });
    return response.ok ? 'admitted' : response.status < 500 ? 'refused' : 'unreachable';
  } catch {
    return 'unreachable';
  }
}
