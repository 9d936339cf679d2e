// The theme that was chosen: the system's, light or dark; kept in this browser.

export type Theme = 'auto' | 'light' | 'dark';

const KEY = 'workshop.theme';

function stored(): Theme {
  const value = remembered(KEY);
  return value === 'light' || value === 'dark' ? value : 'auto';
}

/** Reads from this browser's storage, which may be refused. */
export function remembered(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Keeps in this browser's storage, where that is allowed. */
export function remember(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Without storage the choice holds until the page is left.
  }
}

export const theme = $state<{ choice: Theme }>({ choice: stored() });

export function chooseTheme(choice: Theme): void {
  theme.choice = choice;
  remember(KEY, choice === 'auto' ? null : choice);
  if (choice === 'auto') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = choice;
}

export const nextTheme: Record<Theme, Theme> = { auto: 'light', light: 'dark', dark: 'auto' };
