// What a code block of the tutorial means for a shell. Pure.

export const SHELL_LANGUAGES = new Set(['bash', 'sh', 'shell', 'console', 'zsh', 'shell-session', 'shellsession']);

const SESSIONS = new Set(['console', 'shell-session', 'shellsession']);

/**
 * The lines to type. In a recorded session (`console`, or a block whose first line has a `$ ` prompt) only what follows
 * prompts is typed, with its continuation lines; output is left out. Control characters never are typed, so that
 * nothing can end a bracketed paste early.
 */
export function commandsOf(language: string, code: string): string {
  // eslint-disable-next-line no-control-regex
  const lines = code.replace(/\r\n?/g, '\n').replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '').split('\n');
  while (lines.length && !lines[lines.length - 1]?.trim()) lines.pop();
  while (lines.length && !lines[0]?.trim()) lines.shift();
  const prompted = lines.some((line) => line.startsWith('$ '));
  const rooted = lines.some((line) => line.startsWith('# '));
  const session = SESSIONS.has(language) ? prompted || rooted : (lines[0] ?? '').startsWith('$ ');
  if (!session) return lines.join('\n');
  const prompt = prompted ? '$ ' : '# ';
  const typed: string[] = [];
  let continues = false;
  for (const line of lines) {
    if (line.startsWith(prompt)) {
      typed.push(line.slice(2));
      continues = true;
    } else if (continues && line.startsWith('> ')) {
      typed.push(line.slice(2));
    } else {
      // A backslash at the end of the line before goes on in this one.
      const before = typed[typed.length - 1];
      continues = continues && before !== undefined && /(^|[^\\])(\\\\)*\\$/.test(before);
      if (continues) typed.push(line);
    }
  }
  return typed.join('\n');
}

/** The language of `<code class="language-x">`, lower case; empty where there is none. */
export function languageOf(className: string): string {
  return /(?:^|\s)language-([\w+-]+)/.exec(className)?.[1]?.toLowerCase() ?? '';
}
