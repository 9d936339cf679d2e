// Turns a step's cleaned HTML into a page that can be worked with: code blocks get their language, Copy and Run.

import { base } from '../shared/base';
import { sanitise } from './sanitise';
import { SHELL_LANGUAGES, commandsOf, languageOf } from './commands';

export interface Uses {
  /** Types into the terminal; null where there is none. */
  run: ((commands: string) => void) | null;
  copied: (worked: boolean) => void;
}

const NAMES: Record<string, string> = {
  bash: 'Shell', sh: 'Shell', shell: 'Shell', zsh: 'Shell', console: 'Shell', 'shell-session': 'Shell',
  shellsession: 'Shell', yaml: 'YAML', yml: 'YAML', json: 'JSON', ini: 'INI', toml: 'TOML', python: 'Python',
  py: 'Python', c: 'C', dockerfile: 'Dockerfile', text: '', txt: '', plain: '', plaintext: '', sql: 'SQL', xml: 'XML',
  html: 'HTML', css: 'CSS', js: 'JavaScript', javascript: 'JavaScript', go: 'Go', rust: 'Rust', diff: 'Diff',
  nginx: 'nginx', makefile: 'Makefile', md: 'Markdown', markdown: 'Markdown',
};

/** Replaces the element's content; a second call replaces the first one's. */
export function renderArticle(element: HTMLElement, html: string, uses: Uses): void {
  const fragment = sanitise(html, `${base}api/v1/assets/`);
  const blocks: { code: HTMLElement; language: string }[] = [];
  for (const code of fragment.querySelectorAll<HTMLElement>('pre > code')) {
    const language = languageOf(code.className);
    const text = code.textContent;
    const block = frame(code, language, text, uses);
    if (block && language) blocks.push({ code, language });
  }
  for (const table of fragment.querySelectorAll('table')) scrollable(table);
  element.replaceChildren(fragment);
  if (blocks.length) {
    void import('./highlight').then(({ highlight }) => {
      for (const { code, language } of blocks) highlight(code, language);
    });
  }
}

function frame(code: HTMLElement, language: string, text: string, uses: Uses): boolean {
  const pre = code.parentElement;
  if (!pre) return false;
  const runs = SHELL_LANGUAGES.has(language);
  const figure = document.createElement('figure');
  figure.className = runs ? 'code code-shell' : 'code';
  const bar = document.createElement('figcaption');
  const label = document.createElement('span');
  label.textContent = NAMES[language] ?? language;
  bar.append(label);
  const copied = runs ? commandsOf(language, text) : text.replace(/\n$/, '');
  const copy = button('Copy', 'Copy this code');
  copy.addEventListener('click', () => {
    void copyText(copied).then((worked) => {
      uses.copied(worked);
      flash(copy, worked ? 'Copied' : 'Not copied');
    });
  });
  bar.append(copy);
  const { run } = uses;
  if (runs && run && copied) {
    const start = button('Run', 'Type this into the terminal and run it');
    start.classList.add('run');
    let last = 0;
    start.addEventListener('click', () => {
      // A double click must not run it twice.
      if (Date.now() - last < 1000) return;
      last = Date.now();
      run(copied);
      figure.classList.add('was-run');
      flash(start, 'Sent');
    });
    bar.append(start);
  }
  pre.tabIndex = 0;
  pre.replaceWith(figure);
  figure.append(bar, pre);
  return true;
}

function scrollable(table: HTMLTableElement): void {
  const box = document.createElement('div');
  box.className = 'table';
  box.tabIndex = 0;
  box.setAttribute('role', 'group');
  box.setAttribute('aria-label', 'Table');
  table.replaceWith(box);
  box.append(table);
}

function button(text: string, label: string): HTMLButtonElement {
  const element = document.createElement('button');
  element.type = 'button';
  element.textContent = text;
  element.title = label;
  return element;
}

function flash(element: HTMLButtonElement, text: string): void {
  const before = element.dataset['text'] ?? element.textContent;
  element.dataset['text'] = before;
  element.textContent = text;
  setTimeout(() => (element.textContent = before), 1500);
}

/** Copies to the clipboard, also on pages without a secure context. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    const focused = document.activeElement;
    area.value = text;
    area.className = 'visually-hidden';
    document.body.append(area);
    area.select();
    // Deprecated, and the only way where the clipboard API is refused.
    const worked = document.execCommand('copy');
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return worked;
  }
}
